// Reports the first index that is out of range; the codes are those of `IndexReport`. Kernels that import this bind the buffer at 0.
@group(0) @binding(0) var<storage, read_write> status: array<atomic<u32>, 4>;

fn report(code: u32, index: u32, limit: u32) {
    if atomicCompareExchangeWeak(&status[0], 0u, code).exchanged {
        atomicStore(&status[1], index);
        atomicStore(&status[2], limit);
    }
}

// Counts elements of keys and values that were cut; this word is not cleared. It stops long before it could wrap.
fn report_cut(n: u32) {
    if n > 0u && atomicLoad(&status[3]) < 0x40000000u {
        atomicAdd(&status[3], n);
    }
}
