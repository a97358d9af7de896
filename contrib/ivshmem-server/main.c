/*
 * ivshmem-server: start, run until told to stop, clean up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <glib-unix.h>
#include "config.h"
#include "daemon.h"
#include "handover.h"
#include "ivshmem-fd.h"
#include "log.h"
#include "query.h"
#include "quota.h"
#include "server.h"
#include "systemd.h"

typedef struct Program {
    IvshmemConfig *config;
    IvshmemServer *server;
    IvshmemPidFile *pid_file;
    IvshmemHandover *handover;  /* while taking over */
    GMainLoop *loop;
} Program;

/* The successor has everything: nothing is to be removed or told. */
static void G_GNUC_NORETURN program_handed_over(void *opaque)
{
    Program *program = opaque;

    ivshmem_pid_file_free(program->pid_file);
    exit(EXIT_SUCCESS);
}

static gboolean program_stop(gpointer opaque)
{
    Program *program = opaque;

    ivshmem_log(G_LOG_LEVEL_MESSAGE, "stopping, as told");
    ivshmem_systemd_notify("STOPPING=1");
    if (program->config->fdstore && ivshmem_systemd_is_there() &&
        ivshmem_handover_store(program->server)) {
        program_handed_over(program);
    }
    g_main_loop_quit(program->loop);
    return G_SOURCE_CONTINUE;
}

/* A file with mistakes changes nothing. */
static void program_read_again(Program *program)
{
    g_autoptr(IvshmemConfig) config = NULL;
    g_autoptr(GError) error = NULL;

    if (!program->config->file) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "SIGHUP: there is no configuration "
                    "file (--config) to read again");
        return;
    }
    config = ivshmem_config_reload(program->config, &error);
    if (!config) {
        ivshmem_log(G_LOG_LEVEL_CRITICAL, "SIGHUP: nothing changed, since the "
                    "configuration is wrong:\n%s", error->message);
        return;
    }
    ivshmem_server_reconfigure(program->server, config);
    ivshmem_config_free(program->config);
    program->config = g_steal_pointer(&config);
    ivshmem_log(G_LOG_LEVEL_MESSAGE, "SIGHUP: read %s again",
                program->config->file);
}

static gboolean program_reload(gpointer opaque)
{
    ivshmem_systemd_notify("RELOADING=1\nMONOTONIC_USEC=%" G_GINT64_FORMAT,
                           g_get_monotonic_time());
    program_read_again(opaque);
    ivshmem_systemd_notify("READY=1");
    return G_SOURCE_CONTINUE;
}

static bool program_start(Program *program, GError **errp)
{
    IvshmemConfig *config = program->config;

    if (!config->foreground && !ivshmem_daemon_start(errp)) {
        return false;
    }
    if (config->replace || config->fdstore) {
        GError *error = NULL;

        ivshmem_quota_raise();
        program->handover = config->replace
            ? ivshmem_handover_take(config, &error)
            : ivshmem_handover_from_store(config, &error);
        if (error) {
            g_propagate_error(errp, error);
            return false;
        }
    }
    if (!program->handover) {
        ivshmem_handover_drop();
    }
    program->server = ivshmem_server_new(config, program->handover, errp);
    if (!program->server) {
        return false;
    }
    program->server->handed_over = program_handed_over;
    program->server->handed_over_opaque = program;
    if (program->handover &&
        (!ivshmem_daemon_check(config->pid_file, config->user, config->group,
                               errp) ||
         !ivshmem_handover_confirm(program->handover, errp))) {
        return false;
    }
    g_clear_pointer(&program->handover, ivshmem_handover_free);
    if (config->pid_file) {
        program->pid_file = ivshmem_pid_file_new(config->pid_file, errp);
        if (!program->pid_file) {
            return false;
        }
    }
    if (!ivshmem_daemon_drop(config->user, config->group, errp)) {
        return false;
    }
    if (config->fdstore) {
        ivshmem_handover_reserve(program->server);
    }
    ivshmem_server_settled(program->server);
    if (!config->foreground) {
        ivshmem_log_init(IVSHMEM_LOG_SYSLOG, config->verbose);
    }
    return true;
}

static void program_run(Program *program)
{
    program->loop = g_main_loop_new(NULL, FALSE);
    signal(SIGPIPE, SIG_IGN);
    g_unix_signal_add(SIGTERM, program_stop, program);
    g_unix_signal_add(SIGINT, program_stop, program);
    g_unix_signal_add(SIGHUP, program_reload, program);
    ivshmem_server_announce(program->server);
    ivshmem_daemon_ready();
    ivshmem_daemon_notify(&program->config->ready_fd);
    ivshmem_systemd_notify("READY=1\nMAINPID=%d", (int)getpid());
    ivshmem_systemd_start_watchdog();
    g_main_loop_run(program->loop);
}

static void program_clean_up(Program *program)
{
    ivshmem_server_free(program->server);
    ivshmem_pid_file_free(program->pid_file);
    if (program->loop) {
        g_main_loop_unref(program->loop);
    }
    ivshmem_config_free(program->config);
    ivshmem_systemd_close();
}

/* Nothing of ours may become descriptor 0, 1 or 2: those are written to. */
static void program_open_standard_fds(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd < STDERR_FILENO);
    if (fd > STDERR_FILENO) {
        ivshmem_fd_close(&fd);
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Program program = { 0 };
    bool done = false;

    program_open_standard_fds();
    setlocale(LC_ALL, "");
    program.config = ivshmem_config_from_options(argc, argv, &done, &error);
    if (program.config && program.config->check) {
        g_print("%s: right, with %u regions\n", program.config->file,
                program.config->regions->len);
        done = true;
    } else if (program.config && program.config->query) {
        done = ivshmem_query_run(program.config, &error);
    } else if (program.config) {
        ivshmem_log_init(IVSHMEM_LOG_STDERR, program.config->verbose);
        ivshmem_systemd_init();
        done = program_start(&program, &error);
        if (done) {
            program_run(&program);
        }
    }
    if (error) {
        g_printerr("ivshmem-server: %s\n", error->message);
    }
    if (program.handover) {
        _exit(EXIT_FAILURE);    /* all of it is still the predecessor's */
    }
    program_clean_up(&program);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
