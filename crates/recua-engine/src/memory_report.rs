//! [`MemoryReport`]: the device memory of a model, by what it is for, and how a size is written.

/// Bytes of device memory, by what they are for: weights do not depend on the configuration, the cache is linear in
/// `batch_size * max_seq_len`, the workspace is bounded by `step_tokens_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// The model's tensors.
    pub weights_bytes: u64,
    /// The key-value cache.
    pub kv_bytes: u64,
    /// Everything else: activations, logits, tables, the device's own.
    pub workspace_bytes: u64,
}

impl MemoryReport {
    /// All of it.
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

/// A size as a person reads it.
pub(crate) fn bytes_text(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} bytes"),
    }
}
