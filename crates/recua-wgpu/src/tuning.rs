//! [`Tuning`]: thresholds between kernels that give the same bits, as data. A test opens a device with others to reach every kernel.

/// What is chosen for a device when it is opened. No value changes a bit of any result, but for `emulated`, which chooses the family of
/// kernels and so belongs to the device as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuning {
    /// Runs the kernels of cooperative matrices with a slow scalar stand-in (`EMULATED` in WGSL), whatever the adapter has: tests their
    /// index arithmetic on an adapter without matrices.
    pub(crate) emulated: bool,
    /// Use the 64-row tile of `matmul_tile.wgsl` only if it gives at least this many workgroups; below that, the 32-row tile's two to
    /// four times as many finish sooner.
    pub(crate) tiles_enough: usize,
    /// Use `matmul_coop_128.wgsl` only if it gives at least this many full workgroups: more than half as many as a large device has
    /// cores. With fewer, those of `matmul_coop_64.wgsl` finish sooner.
    pub(crate) many_enough: usize,
    /// Spread the pages of a cache over at least so many allocations, if it has so many pages.
    pub(crate) kv_allocations: usize,
    /// Workgroups of `matmul_coop_16.wgsl`, which takes as many tiles in each as it takes not to have more: as many as a large device has
    /// cores, each of which is then busy as long as the others. On an H200, with 132 cores, gate and up of an 8B model (896 tiles) take 36
    /// microseconds in 128 workgroups, 41 in 224 and 43 in 448.
    pub(crate) few_workgroups: usize,
    /// Launches of a part of a program that has no commands yet: enough to encode for several times as long as it costs to submit one,
    /// which was 15 to 40 microseconds of the host's time and 25 of the device's on an H200 (`bench/record`); 30 and 60 did as well.
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
