//! The process itself, from `/proc/self` (Linux; elsewhere the values are missing).

use std::fs;

/// Ticks a second in `/proc/*/stat`: USER_HZ, part of the kernel's interface and 100 on every architecture that Rust
/// builds for (proc(5), times(2)).
const TICKS_PER_SECOND: f64 = 100.0;

/// `None`: not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// Seconds since the Unix epoch.
    pub start_time_s: Option<f64>,
}

impl Process {
    /// As it is now. A few small reads; never fails.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(
            &text("/proc/self/stat"),
            &text("/proc/self/status"),
            &text("/proc/self/limits"),
            &text("/proc/stat"),
        );
        process.open_fds = open_fds();
        process
    }

    fn parse(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The command's name, in parentheses, may hold anything; the fields after it are counted from the third.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks = |field: usize| -> Option<f64> { after_name.split(' ').nth(field - 3)?.parse().ok() };
        let kib = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        let boot_s: Option<f64> = system
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|value| value.trim().parse().ok());
        Self {
            cpu_seconds: ticks(14)
                .zip(ticks(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            open_fds: None,
            max_fds: limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|line| line.split_whitespace().next())
                .and_then(|soft| soft.parse().ok()),
            start_time_s: boot_s
                .zip(ticks(22))
                .map(|(boot, since_boot)| boot + since_boot / TICKS_PER_SECOND),
        }
    }
}

/// Linux 6.2 and later say the number as the directory's size; before, the entries are counted, less the one that
/// the counting opens.
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        0 => Some((fs::read_dir(DIRECTORY).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests;
