//! How much of the host's memory is free, for devices that use it.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes of the host's memory that this process may still take: what the system counts as
/// available, or what its control groups leave of that. `None` where neither can be told.
pub fn available() -> Option<u64> {
    let whole = read_to_string("/proc/meminfo").ok();
    let whole = whole.and_then(|text| available_in(&text));
    [whole, left_by_groups()].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What the control groups (version 2) that this process is in leave: the least of them.
fn left_by_groups() -> Option<u64> {
    let own = read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let place = root.join(own);
    let groups = place.ancestors().take_while(|p| p.starts_with(root));
    let left = groups.filter_map(|group| {
        let read = |name: &str| read_to_string(group.join(name)).ok();
        left_by_group(
            &read("memory.max")?,
            &read("memory.current")?,
            &read("memory.stat")?,
        )
    });
    left.min()
}

/// What a group leaves; file pages that nobody uses are given back when they are needed.
fn left_by_group(max: &str, current: &str, stat: &str) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let unused = stat.lines().find_map(|l| l.strip_prefix("inactive_file "));
    let unused = unused.and_then(number).unwrap_or(0);
    let used = number(current)?.saturating_sub(unused);
    Some(number(max)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_is_available() {
        let text = "MemTotal:       24576000 kB\nMemFree: 1 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(available_in(text), Some(23_000_000 << 10));
        assert_eq!(available_in("MemFree: 1 kB"), None);
    }

    #[test]
    fn a_group_gives_unused_file_pages_back() {
        let stat = "anon 10\ninactive_file 300\nactive_file 7\n";
        assert_eq!(left_by_group("1000\n", "700\n", stat), Some(600));
        assert_eq!(left_by_group("1000\n", "1500\n", "anon 10"), Some(0));
        assert_eq!(left_by_group("max\n", "700\n", stat), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_host_has_some() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
