//! What the kernel says about this process.

use super::{Exposition, Metric};

/// Adds memory and descriptors. Where `/proc` is missing they are left out.
pub(crate) fn collect(out: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = resident_bytes(&status) {
        out.gauge(Metric::ProcessMemory, &[], bytes as f64);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        // The one that reads the list is in the list.
        let open = descriptors.count().saturating_sub(1);
        out.gauge(Metric::ProcessOpenFds, &[], open as f64);
    }
}

/// `VmRSS`, which the kernel gives in units of 1,024 bytes whatever the size of a page.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        let status = "Name:\tportcullis\nVmPeak:\t  9000 kB\nVmRSS:\t    1234 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tportcullis\n"), None);
    }
}
