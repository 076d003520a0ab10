//! What the system says about the machine. No file is written, and none has to be there.

/// The name users know it by; the architecture if there is none.
pub(super) fn processor_name() -> String {
    let read = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = read.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

/// What this process can still allocate without swapping: the kernel's estimate, or what is left of its control group's limit if that is
/// lower. `None` if the kernel gives no estimate.
pub(super) fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|max| max.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(group.map_or(available, |group| group.min(available)))
}
