use super::*;

/// proc(5); the name of the command is chosen to deceive.
const STAT: &str = "1234 (roll) 9 (gate) S 1 1234 1234 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 4 0 4200 67108864 4096 \
                    18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
const STATUS: &str = "Name:\trollgate\nVmSize:\t   65536 kB\nVmRSS:\t   16384 kB\nThreads:\t4\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";

#[test]
fn the_files_of_proc_are_understood() {
    let process = Process::parse(STAT, STATUS, LIMITS, "cpu 1 2\nbtime 1782907058\n");
    assert_eq!(
        process,
        Process {
            cpu_seconds: Some(3.25),
            resident_bytes: Some(16 << 20),
            virtual_bytes: Some(64 << 20),
            open_fds: None,
            max_fds: Some(1024),
            start_time_s: Some(1_782_907_100.0),
        }
    );
}

#[test]
fn what_is_missing_is_not_known() {
    assert_eq!(Process::parse("", "", "", ""), Process::default());
    let unlimited = Process::parse(
        "1 (x",
        "VmRSS: many",
        "Max open files unlimited unlimited files",
        "btime x",
    );
    assert_eq!(unlimited, Process::default());
}

#[test]
fn this_process_is_seen() {
    let _open: Vec<_> = (0..20)
        .map(|_| std::fs::File::open("/proc/self/stat").unwrap())
        .collect();
    let process = Process::read();
    assert!(process.open_fds.unwrap() >= 23, "{process:?}");
    assert!(process.resident_bytes.unwrap() > 100_000, "{process:?}");
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let age_s = now_s - process.start_time_s.unwrap();
    assert!((-2.0..3600.0).contains(&age_s), "{age_s}");
}
