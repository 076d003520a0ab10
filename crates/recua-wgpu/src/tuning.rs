//! [`Tuning`]: thresholds between kernels that give the same bits, as data. Tests open devices with other values to reach every kernel.

/// Chosen for a device when it is opened. No value changes a bit of any result, except `emulated`, which chooses the family of kernels and
/// so is fixed while the device lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuning {
    /// Runs the kernels for cooperative matrices with a slow scalar stand-in (`EMULATED` in WGSL), whatever the adapter has, to test their
    /// index arithmetic on an adapter without matrices.
    pub(crate) emulated: bool,
    /// Use the 64-row tile of `matmul_tile.wgsl` only if it gives at least this many workgroups; below that, the 32-row tile's two to
    /// four times as many finish sooner.
    pub(crate) tiles_enough: usize,
    /// Use `matmul_coop_128.wgsl` only if it gives at least this many full workgroups: more than half as many as a large device has
    /// cores. With fewer, those of `matmul_coop_64.wgsl` finish sooner.
    pub(crate) many_enough: usize,
    /// Spread the pages of a cache over at least this many allocations, if it has that many pages.
    pub(crate) kv_allocations: usize,
    /// The most workgroups of `matmul_coop_16.wgsl`, each of which takes as many tiles as this requires: as many as a large device has
    /// cores, which are then all busy equally long. On an H200, with 132 cores, gate and up of an 8B model (896 tiles) take 36 microseconds
    /// in 128 workgroups, 41 in 224 and 43 in 448.
    pub(crate) few_workgroups: usize,
    /// Launches per part of a program that has no encoded commands yet. Encoding a part should take several times as long as submitting it,
    /// which cost 15 to 40 microseconds of the host's time and 25 of the device's on an H200 (`bench/record`); 30 and 60 launches did as
    /// well.
    pub(crate) part_launches: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            emulated: false,
            tiles_enough: 160,
            many_enough: 80,
            few_workgroups: 132,
            kv_allocations: 1,
            part_launches: 40,
        }
    }
}
