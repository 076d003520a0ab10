//! [`MemoryReport`]: the device memory of a model, by purpose, and the formatting of sizes.

/// Bytes of device memory, by purpose: weights do not depend on the configuration, the cache is linear in `batch_size * max_seq_len`, and
/// the workspace is bounded by `step_tokens_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// The model's tensors.
    pub weights_bytes: u64,
    /// The key-value cache.
    pub kv_bytes: u64,
    /// Everything else: activations, logits, tables, the device's own memory.
    pub workspace_bytes: u64,
}

impl MemoryReport {
    /// The total in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.workspace_bytes)
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "{} (weights {}, KV cache {}, workspace {})",
            bytes_text(self.total_bytes()),
            bytes_text(self.weights_bytes),
            bytes_text(self.kv_bytes),
            bytes_text(self.workspace_bytes)
        )
    }
}

/// A size in a readable unit.
pub(crate) fn bytes_text(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} bytes"),
    }
}
