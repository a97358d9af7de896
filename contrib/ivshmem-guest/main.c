/*
 * ivshmem-guest: command line.
 *
 * Each command lives in the file that is named after its matter.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"

#ifndef IVSHMEM_VERSION
#define IVSHMEM_VERSION "unknown"
#endif

enum { IVSHMEM_EXIT_FAILED = 1, IVSHMEM_EXIT_USAGE = 2 };

typedef struct IvshmemCommand {
    const char *name;
    const char *args;
    int min_args, max_args;
    const char *options;        /* letters of those that it takes besides -d, -S */
    IvshmemCommandFunc *run;
    const char *help;
} IvshmemCommand;

static const IvshmemCommand ivshmem_commands[] = {
    { "list", "", 0, 0, "j", ivshmem_command_list,
      "the ivshmem devices of this guest" },
    { "info", "", 0, 0, "jVm", ivshmem_command_info,
      "ID, memory, mapping, vectors and driver of one device" },
    { "bind", "", 0, 0, "N", ivshmem_command_bind,
      "give the device to vfio-pci: needed for interrupts" },
    { "unbind", "", 0, 0, "", ivshmem_command_unbind,
      "take it back" },
    { "read", "OFFSET [LENGTH]", 1, 2, "Vm", ivshmem_command_read,
      "print memory as hexadecimal digits (4 bytes)" },
    { "write", "OFFSET TEXT|0xHEX|-", 2, 2, "Vm", ivshmem_command_write,
      "write text, bytes or standard input" },
    { "dump", "[OFFSET [LENGTH]]", 0, 2, "Vm", ivshmem_command_dump,
      "print memory for people (256 bytes)" },
    { "fill", "OFFSET LENGTH BYTE", 3, 3, "Vm", ivshmem_command_fill,
      "set memory to one value" },
    { "cat", "[OFFSET [LENGTH]]", 0, 2, "Vm", ivshmem_command_cat,
      "copy memory to standard output (all)" },
    { "ring", "PEER [VECTOR]", 1, 2, "Vcx", ivshmem_command_ring,
      "interrupt a peer" },
    { "wait", "[VECTOR]", 0, 1, "Vctjv", ivshmem_command_wait,
      "wait for interrupts (one, of any vector)" },
    { "ping", "PEER", 1, 1, "VmctoxjaA", ivshmem_command_ping,
      "time round trips with 'ping --answer' or 'chat' over there" },
    { "bench", "", 0, 0, "Vjs", ivshmem_command_bench,
      "cost of registers, interrupts and memory accesses" },
    { "chat", "PEER", 1, 1, "Vmtoxvrle", ivshmem_command_chat,
      "exchange lines of text with 'chat' over there" },
};

static const struct option ivshmem_long_options[] = {
    { "device", required_argument, NULL, 'd' },
    { "via", required_argument, NULL, 'V' },
    { "map", required_argument, NULL, 'm' },
    { "sysfs", required_argument, NULL, 'S' },
    { "json", no_argument, NULL, 'j' },
    { "verbose", no_argument, NULL, 'v' },
    { "no-iommu", no_argument, NULL, 'N' },
    { "count", required_argument, NULL, 'c' },
    { "timeout", required_argument, NULL, 't' },
    { "offset", required_argument, NULL, 'o' },
    { "size", required_argument, NULL, 's' },
    { "vector", required_argument, NULL, 'x' },
    { "answer", no_argument, NULL, 'a' },
    { "reply", no_argument, NULL, 'r' },
    { "lead", no_argument, NULL, 'l' },
    { "expect", required_argument, NULL, 'e' },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'W' },
    { NULL, 0, NULL, 0 },
};

static void ivshmem_main_help(void)
{
    puts("usage: ivshmem-guest COMMAND [ARGUMENTS] [OPTIONS]\n"
         "\nReaches an ivshmem device from inside a Linux guest.\n\nCommands:");
    for (size_t i = 0; i < sizeof(ivshmem_commands) / sizeof(ivshmem_commands[0]); i++) {
        const IvshmemCommand *command = &ivshmem_commands[i];

        printf("  %-6s %-22s %s\n", command->name, command->args, command->help);
    }
    puts("\nOptions, where they make sense:\n"
         "  -d, --device=NAME    address (00:03.0) or region ID (id=7)\n"
         "      --via=WAY        auto, vfio, sysfs or uio\n"
         "  -m, --map=KIND       auto, uc (uncached) or wc (write-combining)\n"
         "  -c, --count=N        rings, interrupts or round trips\n"
         "  -t, --timeout=TIME   2, 2s, 500ms, 1m\n"
         "  -x, --vector=N       the peer's vector to ring (0)\n"
         "  -o, --offset=N       place of the ping and chat channel in the memory (0)\n"
         "  -s, --size=N         bench: bytes per copy (1M)\n"
         "  -a, --answer         ping: answer until the other side ends\n"
         "  -r, --reply          chat: one line of input per message received\n"
         "  -l, --lead           the same, but the first line goes at once\n"
         "  -e, --expect=N       chat: fail if fewer messages arrive\n"
         "      --no-iommu       bind: switch on the kernel's no-IOMMU mode\n"
         "  -j, --json           one JSON object per line\n"
         "  -v, --verbose        say what is done\n"
         "      --sysfs=DIR      sysfs is mounted there (/sys)\n"
         "  -h, --help, --version\n"
         "\nPEER is the other guest's ID ('info' shows it there); on ivshmem-plain one\n"
         "side says 0 and the other 1. Numbers: 4096, 0x1000, 4K.\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage.");
}

static bool ivshmem_main_size(const char *name, const char *text, uint64_t *value,
                              IvshmemError *err)
{
    return (ivshmem_parse_size(text, value) && *value) ||
           (text[0] == '0' && !strcmp(name, "offset") &&
            ivshmem_parse_size(text, value)) ||
           ivshmem_error_set(err, "--%s '%s' is not a %snumber like 4096, 0x1000 or 4K",
                             name, text, strcmp(name, "offset") ? "positive " : "");
}

static bool ivshmem_main_choice(const char *name, const char *text,
                                const char *const *choices, IvshmemError *err)
{
    for (int i = 0; choices[i]; i++) {
        if (!strcmp(text, choices[i])) {
            return true;
        }
    }
    return ivshmem_error_set(err, "--%s '%s' is none of %s, %s, %s%s%s", name, text,
                             choices[0], choices[1], choices[2], choices[3] ? ", " : "",
                             choices[3] ? choices[3] : "");
}

/* Takes one option with a value. */
static bool ivshmem_main_value(IvshmemOptions *opt, int letter, const char *text,
                               IvshmemError *err)
{
    static const char *const ways[] = { "auto", "vfio", "sysfs", "uio", NULL };
    static const char *const maps[] = { "auto", "uc", "wc", NULL };

    switch (letter) {
    case 'd':
        opt->device = text;
        return true;
    case 'S':
        opt->sysfs = text;
        return strlen(text) < 100 || ivshmem_error_set(err, "--sysfs: name too long");
    case 'V':
        opt->via = text;
        return ivshmem_main_choice("via", text, ways, err);
    case 'm':
        opt->map = text;
        return ivshmem_main_choice("map", text, maps, err);
    case 'c':
        return ivshmem_main_size("count", text, &opt->count, err);
    case 'e':
        return ivshmem_main_size("expect", text, &opt->expect, err);
    case 'o':
        return ivshmem_main_size("offset", text, &opt->offset, err);
    case 's':
        return ivshmem_main_size("size", text, &opt->size, err);
    case 'x':
        return ivshmem_parse_u16(text, "--vector", &opt->vector, err);
    default:
        return ivshmem_parse_time(text, &opt->timeout_ns) ||
               ivshmem_error_set(err, "--timeout '%s' is not a time like 2, 2s, 500ms "
                                 "or 1m", text);
    }
}

static void ivshmem_main_flag(IvshmemOptions *opt, int letter)
{
    opt->json |= letter == 'j';
    opt->verbose |= letter == 'v';
    opt->no_iommu |= letter == 'N';
    opt->answer |= letter == 'a';
    opt->reply |= letter == 'r';
    opt->lead |= letter == 'l';
}

static const char *ivshmem_main_long_name(int letter)
{
    const struct option *option = ivshmem_long_options;

    while (option->name && option->val != letter) {
        option++;
    }
    return option->name;
}

static int ivshmem_main_usage(const char *text)
{
    fprintf(stderr, "ivshmem-guest: %s\nivshmem-guest --help shows commands and "
            "options\n", text);
    return IVSHMEM_EXIT_USAGE;
}

/* Fills @opt and the letters of the options @given; 0, or an exit status + 1. */
static int ivshmem_main_options(int argc, char **argv, IvshmemOptions *opt, char *given,
                                size_t room, IvshmemError *err)
{
    int letter;
    size_t n = 0;

    while ((letter = getopt_long(argc, argv, "d:m:jvc:t:o:s:x:arle:h",
                                 ivshmem_long_options, NULL)) != -1) {
        if (letter == 'h') {
            ivshmem_main_help();
            return 1;
        }
        if (letter == 'W') {
            puts("ivshmem-guest " IVSHMEM_VERSION);
            return 1;
        }
        if (letter == '?') {
            return ivshmem_main_usage("wrong option") + 1;
        }
        if (n + 1 < room) {
            given[n++] = letter;
        }
        if (!optarg) {
            ivshmem_main_flag(opt, letter);
        } else if (!ivshmem_main_value(opt, letter, optarg, err)) {
            return ivshmem_main_usage(err->text) + 1;
        }
    }
    return 0;
}

static const IvshmemCommand *ivshmem_main_command(const char *name)
{
    for (size_t i = 0; i < sizeof(ivshmem_commands) / sizeof(ivshmem_commands[0]); i++) {
        if (!strcmp(ivshmem_commands[i].name, name)) {
            return &ivshmem_commands[i];
        }
    }
    return NULL;
}

static bool ivshmem_main_fits(const IvshmemCommand *command, const char *given, int argc,
                              IvshmemError *err)
{
    if (argc < command->min_args || argc > command->max_args) {
        return ivshmem_error_set(err, "usage: ivshmem-guest %s%s%s", command->name,
                                 *command->args ? " " : "", command->args);
    }
    for (; *given; given++) {
        if (*given != 'd' && *given != 'S' && !strchr(command->options, *given)) {
            return ivshmem_error_set(err, "%s does not take --%s", command->name,
                                     ivshmem_main_long_name(*given));
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    IvshmemOptions opt = {
        .via = "auto", .map = "auto", .sysfs = "/sys", .timeout_ns = -1,
    };
    const IvshmemCommand *command;
    char given[32] = "";
    IvshmemError err;
    int ret;

    ret = ivshmem_main_options(argc, argv, &opt, given, sizeof(given), &err);
    if (ret) {
        return ret - 1;
    }
    if (optind == argc) {
        return ivshmem_main_usage("which command?");
    }
    command = ivshmem_main_command(argv[optind]);
    if (!command) {
        ivshmem_error_set(&err, "'%s' is not a command", argv[optind]);
        return ivshmem_main_usage(err.text);
    }
    argv += optind + 1;
    argc -= optind + 1;
    if (!ivshmem_main_fits(command, given, argc, &err)) {
        return ivshmem_main_usage(err.text);
    }
    if (!command->run(&opt, argc, argv, &err)) {
        fflush(stdout);
        fprintf(stderr, "ivshmem-guest: %s: %s\n", command->name, err.text);
        return IVSHMEM_EXIT_FAILED;
    }
    return 0;
}
