// Reports the first index that is out of range; the codes are those of `IndexReport`. Kernels that import this bind the buffer at 0.
@group(0) @binding(0) var<storage, read_write> status: array<atomic<u32>, 4>;

fn report(code: u32, index: u32, limit: u32) {
    if atomicCompareExchangeWeak(&status[0], 0u, code).exchanged {
        atomicStore(&status[1], index);
        atomicStore(&status[2], limit);
    }
}
