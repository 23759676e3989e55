//! The one table of metrics: names, types, labels, meanings. `docs/metrics.md` has a row for
//! each, which a test checks.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its samples end in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations by size, in seconds.
    Histogram,
    /// The sum and the number of observed values.
    Summary,
}

impl Kind {
    /// The word of the text formats.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Family {
    /// Its name; of a counter, without `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The labels of each of its samples.
    pub labels: &'static [&'static str],
    /// What it says, one line.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All metrics.
        #[cfg(test)]
        pub const ALL: &[&Family] = &[$(&$constant),*];
    };
}

// One line each: it is read as a table.
#[rustfmt::skip]
families! {
    INFO: Gauge "mfserv_info" ["version"] "Always 1; the version of mfserv.";
    NODE_STATE: Gauge "mfserv_node_state" ["state"] "1 for the state that the node has, else 0.";
    PLAN_GENERATION: Gauge "mfserv_plan_generation" [] "The number of the plan in force.";
    PROBLEMS: Gauge "mfserv_problems" [] "Problems of the present configuration.";
    PLUGIN_INFO: Gauge "mfserv_plugin_info" ["plugin", "version", "state"] "Always 1; the plugins, how each takes part.";
    SOURCES: Gauge "mfserv_telemetry_sources" ["role"] "Processes that send their counters now.";
    DROPPED: Counter "mfserv_telemetry_dropped" ["what"] "What was lost on the way to InfluxDB, or lost its tags, while too much came or nobody took it; bytes of logs that were removed before their receiver took them.";
    TELEMETRY_TROUBLES: Gauge "mfserv_telemetry_troubles" [] "Ports and receivers that do not work now: `mfserv status` names them.";
    ALERT_FIRING: Gauge "mfserv_alert_firing" ["alert"] "For how many apps, or for the node, an alert fires now.";
    SHIPPED: Counter "mfserv_ship_documents" ["log", "receiver", "outcome"] "Lines and messages that a receiver has taken (sent), had already (known), or never takes (refused: in the dead letters).";
    SHIP_UNREAD: Gauge "mfserv_ship_unread_bytes" ["log", "receiver"] "Bytes of a log that its receiver has not taken yet.";
    REQUESTS: Counter "mfserv_http_requests" ["plugin", "app", "type", "code"] "Requests answered, by status code.";
    METHODS: Counter "mfserv_http_requests_by_method" ["plugin", "app", "method"] "Requests answered, by method; other: a method that HTTP does not define.";
    DURATION: Histogram "mfserv_http_request_duration_seconds" ["plugin", "app", "type"] "Time from the head of a request to the end of its answer.";
    WAIT: Histogram "mfserv_http_queue_wait_seconds" ["plugin", "app"] "Time that requests to workers waited for a slot.";
    RECEIVED: Counter "mfserv_http_request_bytes" ["plugin", "app", "type"] "Bytes received from clients.";
    SENT: Counter "mfserv_http_response_bytes" ["plugin", "app", "type"] "Bytes sent to clients.";
    FAULTS: Counter "mfserv_http_faults" ["plugin", "app", "cause"] "Answers of the front in place of the app, by cause (X-Mfserv-Cause).";
    IN_FLIGHT: Gauge "mfserv_http_requests_in_flight" ["plugin", "app"] "Requests that a worker has now.";
    WAITING: Gauge "mfserv_http_requests_waiting" ["plugin", "app"] "Requests that wait for a slot now.";
    QUEUED: Counter "mfserv_http_requests_queued" ["plugin", "app"] "Requests that had to wait for a slot.";
    RETRIED: Counter "mfserv_http_requests_retried" ["plugin", "app"] "Requests tried again on another worker.";
    CONNECTIONS: Gauge "mfserv_front_connections" [] "Client connections open now.";
    ACCEPTED: Counter "mfserv_front_connections_accepted" [] "Client connections accepted.";
    HANDSHAKES: Counter "mfserv_front_tls_handshakes" ["outcome"] "TLS handshakes: full, resumed, or why there is no connection (plain_http, abandoned, nothing_in_common, alert, client_certificate, malformed, no_certificate).";
    BUSY: Gauge "mfserv_front_requests_in_work" [] "Requests that the fronts read or answer now.";
    WANTED: Gauge "mfserv_workers_wanted" ["plugin", "app", "kind"] "Workers that are wanted.";
    WORKERS: Gauge "mfserv_workers" ["plugin", "app", "kind", "phase"] "Workers, by phase.";
    ENDS: Counter "mfserv_worker_ends" ["plugin", "app", "kind", "reason"] "Ends of workers, by reason.";
    BOOTS: Histogram "mfserv_worker_boot_seconds" ["plugin", "app", "kind"] "Time from the start of a worker until it was ready.";
    TROUBLES: Counter "mfserv_worker_troubles" ["plugin", "app", "kind", "cause"] "What workers did wrong, as the front saw it.";
    WORKER_MEMORY: Gauge "mfserv_worker_memory_bytes" ["plugin", "app", "kind", "slot"] "Resident memory of a worker with its descendants.";
    WORKER_MEMORY_LIMIT: Gauge "mfserv_worker_memory_limit_bytes" ["plugin", "app", "kind"] "memory_limit of each worker; workers without one have none.";
    WORKER_CPU: Counter "mfserv_worker_cpu_seconds" ["plugin", "app", "kind", "slot"] "CPU time of a worker with its descendants.";
    WORKER_FDS: Gauge "mfserv_worker_open_descriptors" ["plugin", "app", "kind", "slot"] "Open descriptors of a worker with its descendants.";
    WORKER_THREADS: Gauge "mfserv_worker_threads" ["plugin", "app", "kind", "slot"] "Threads of a worker with its descendants.";
    OPERATIONS: Counter "mfserv_operations" ["operation", "outcome"] "Operations (deploy, rollback, restart, ...) that have ended.";
    OPERATION_TIME: Counter "mfserv_operation_seconds" ["operation", "outcome"] "How long these operations took together.";
    JOB_RUNS: Counter "mfserv_job_runs" ["plugin", "job", "result"] "Runs of jobs that have ended, and those that were due and not started (skipped, missed).";
    JOB_TIME: Counter "mfserv_job_run_seconds" ["plugin", "job", "result"] "How long these runs took together.";
    JOB_RUNNING: Gauge "mfserv_job_running" ["plugin", "job"] "Runs of the job that live.";
    JOB_LAST_SUCCESS: Gauge "mfserv_job_last_success_timestamp_seconds" ["plugin", "job"] "When a run of the job last ended with code 0.";
    ROLE_MEMORY: Gauge "mfserv_role_memory_bytes" ["role"] "Resident memory of keeper, daemon and telemetry, without their children.";
    ROLE_CPU: Counter "mfserv_role_cpu_seconds" ["role"] "CPU time of these roles.";
    ROLE_FDS: Gauge "mfserv_role_open_descriptors" ["role"] "Open descriptors of these roles.";
    ROLE_START: Gauge "mfserv_role_start_time_seconds" ["role"] "When these roles were started, seconds since the Unix epoch.";
    APP_COUNTED: Counter "mfserv_app_counted" ["name"] "Counters that apps send by statsd.";
    APP_VALUE: Gauge "mfserv_app_value" ["name"] "Gauges that apps send by statsd: the last value.";
    APP_MEMBERS: Gauge "mfserv_app_set_members" ["name"] "Sets that apps send by statsd: different members in the last 10 s.";
    APP_TIME: Summary "mfserv_app_time_seconds" ["name"] "Timers that apps send by statsd.";
    APP_DISTRIBUTION: Summary "mfserv_app_distribution" ["name"] "Histograms that apps send by statsd.";
    APP_FIELD: Gauge "mfserv_app_field" ["name", "field"] "Numbers in lines of InfluxDB that apps send: the last value.";
    HOST_CPU: Counter "mfserv_host_cpu_seconds" ["mode"] "Time of all processors of this machine, by what it was used for.";
    HOST_CPUS: Gauge "mfserv_host_cpus" [] "Processors of this machine, hyper-threads included.";
    HOST_LOAD: Gauge "mfserv_host_load" ["minutes"] "Processes that ran or waited, averaged over the last minutes.";
    HOST_MEMORY: Gauge "mfserv_host_memory_size_bytes" [] "Memory of this machine.";
    HOST_AVAILABLE: Gauge "mfserv_host_memory_available_bytes" [] "Memory that programs could still get without swapping.";
    HOST_FREE: Gauge "mfserv_host_memory_free_bytes" [] "Memory that nobody uses for anything.";
    HOST_CACHED: Gauge "mfserv_host_memory_cached_bytes" [] "Memory with contents of files.";
    HOST_BUFFERS: Gauge "mfserv_host_memory_buffers_bytes" [] "Memory with blocks of disks.";
    HOST_DIRTY: Gauge "mfserv_host_memory_dirty_bytes" [] "Memory that waits to be written to disks.";
    HOST_SWAP: Gauge "mfserv_host_swap_size_bytes" [] "Swap space of this machine.";
    HOST_SWAP_FREE: Gauge "mfserv_host_swap_free_bytes" [] "Swap space that is free.";
    HOST_SWAP_IN: Counter "mfserv_host_swap_read_bytes" [] "Bytes read from the swap space.";
    HOST_SWAP_OUT: Counter "mfserv_host_swap_written_bytes" [] "Bytes written to the swap space.";
    HOST_DISK_SIZE: Gauge "mfserv_host_filesystem_size_bytes" ["path", "device", "fstype"] "Sizes of local file systems, by where they are mounted.";
    HOST_DISK_AVAILABLE: Gauge "mfserv_host_filesystem_available_bytes" ["path", "device", "fstype"] "What is left on them for users who are not root.";
    HOST_INODES: Gauge "mfserv_host_filesystem_inodes" ["path", "device", "fstype"] "How many inodes they may have; 0: no such bound.";
    HOST_INODES_FREE: Gauge "mfserv_host_filesystem_inodes_free" ["path", "device", "fstype"] "How many of them are free.";
    HOST_DISK_READ: Counter "mfserv_host_disk_read_bytes" ["disk"] "Bytes read from disks and partitions.";
    HOST_DISK_WRITTEN: Counter "mfserv_host_disk_written_bytes" ["disk"] "Bytes written to disks and partitions.";
    HOST_DISK_READS: Counter "mfserv_host_disk_reads" ["disk"] "Reads that have ended.";
    HOST_DISK_WRITES: Counter "mfserv_host_disk_writes" ["disk"] "Writes that have ended.";
    HOST_DISK_READ_TIME: Counter "mfserv_host_disk_read_seconds" ["disk"] "How long these reads took together.";
    HOST_DISK_WRITE_TIME: Counter "mfserv_host_disk_write_seconds" ["disk"] "How long these writes took together.";
    HOST_DISK_BUSY: Counter "mfserv_host_disk_busy_seconds" ["disk"] "Time in which a disk had something to do.";
    HOST_DISK_WEIGHTED: Counter "mfserv_host_disk_weighted_seconds" ["disk"] "The same, times the requests in progress.";
    HOST_DISK_NOW: Gauge "mfserv_host_disk_in_progress" ["disk"] "Requests in progress now.";
    HOST_RECEIVED: Counter "mfserv_host_network_received_bytes" ["interface"] "Bytes received by network interfaces.";
    HOST_SENT: Counter "mfserv_host_network_sent_bytes" ["interface"] "Bytes sent by network interfaces.";
    HOST_RECEIVED_PACKETS: Counter "mfserv_host_network_received_packets" ["interface"] "Packets received.";
    HOST_SENT_PACKETS: Counter "mfserv_host_network_sent_packets" ["interface"] "Packets sent.";
    HOST_RECEIVE_ERRORS: Counter "mfserv_host_network_receive_errors" ["interface"] "Errors of received packets.";
    HOST_SEND_ERRORS: Counter "mfserv_host_network_send_errors" ["interface"] "Errors of sent packets.";
    HOST_RECEIVE_DROPS: Counter "mfserv_host_network_receive_drops" ["interface"] "Received packets that were dropped.";
    HOST_SEND_DROPS: Counter "mfserv_host_network_send_drops" ["interface"] "Packets that were dropped before they were sent.";
    HOST_PRESSURE: Counter "mfserv_host_pressure_seconds" ["resource", "kind"] "Time for which some or all work waited for cpu, memory or io.";
    HOST_PROCESSES: Gauge "mfserv_host_processes" ["state"] "Processes of this machine, by state.";
    HOST_THREADS: Gauge "mfserv_host_threads" [] "The threads of all of them.";
    HOST_FORKS: Counter "mfserv_host_forks" [] "Processes and threads that were made.";
    HOST_SWITCHES: Counter "mfserv_host_context_switches" [] "Context switches.";
    HOST_INTERRUPTS: Counter "mfserv_host_interrupts" [] "Interrupts.";
    HOST_ENTROPY: Gauge "mfserv_host_entropy" [] "Bits of randomness that the kernel has.";
    HOST_BOOT: Gauge "mfserv_host_boot_timestamp_seconds" [] "When this machine was started, seconds since the Unix epoch.";
    HOST_UPTIME: Gauge "mfserv_host_uptime_seconds" [] "How long ago that is.";
    HOST_SESSIONS: Gauge "mfserv_host_sessions" [] "Sessions of users, where the machine keeps a record of them.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_row_of_every_metric() {
        let document = include_str!("../../../../docs/metrics.md");
        for family in ALL {
            let total = if family.kind == Kind::Counter { "_total" } else { "" };
            let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
            let row = format!(
                "| `{}{total}` | {} | {} | {} |",
                family.name,
                family.kind.as_str(),
                labels.join(", "),
                family.help
            );
            assert!(document.contains(&row), "docs/metrics.md misses this line:\n{row}");
        }
    }

    #[test]
    fn a_name_is_there_once() {
        for (index, family) in ALL.iter().enumerate() {
            let same = |other: &&Family| other.name == family.name;
            assert_eq!(ALL.iter().position(same), Some(index), "{}", family.name);
        }
    }
}
