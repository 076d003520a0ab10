// argmax and top_k: what there is to choose a token from, of rows of logits. A row is cut into parts, one block each; with several parts
// the last block of a row that is done merges them. A maximum has the same bits in any order. Bound by reading the logits once.
#include "base.cuh"

#define NONE 0xffffffffu
#define LOWEST 0xff800000u // the bits of minus infinity

struct ArgmaxArgs {
    const float* x;        // [n_rows][columns]
    u32* out;              // [n_rows]
    uint2* found;          // [n_rows][parts] of {value, index}
    u32* tickets;          // [n_rows], zero before and after
    u32 columns, parts, part_columns;
};

struct Best {
    float value;
    u32 place;
    // A NaN is not larger than anything.
    DEVICE_MEMBER void take(float other, u32 other_place) {
        if (other > value || (other == value && other_place < place)) {
            value = other;
            place = other_place;
        }
    }
};

DEVICE Best block_best(Best best, Best* shared) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = 16; i; i /= 2) best.take(__shfl_xor_sync(FULL, best.value, i), __shfl_xor_sync(FULL, best.place, i));
    if (lane == 0) shared[warp] = best;
    __syncthreads();
    best = lane < THREADS / 32 ? shared[lane] : Best{__uint_as_float(LOWEST), NONE};
    for (int i = 16; i; i /= 2) best.take(__shfl_xor_sync(FULL, best.value, i), __shfl_xor_sync(FULL, best.place, i));
    return best;
}

extern "C" __global__ void __launch_bounds__(THREADS) argmax(ArgmaxArgs args) {
    __shared__ Best shared[THREADS / 32];
    __shared__ u32 is_last;
    let_next_start();
    wait_for_previous();
    const u32 row = blockIdx.y, part = blockIdx.x;
    const float* x = args.x + (u64)row * args.columns;
    const u32 begin = part * args.part_columns, end = min(begin + args.part_columns, args.columns);
    Best best = {__uint_as_float(LOWEST), NONE};
    // An element that equals minus infinity is not above it, so the first place is for what is larger.
    for (u32 i = begin + threadIdx.x; i < end; i += THREADS) {
        const float value = x[i];
        if (value > best.value) best = Best{value, i};
    }
    best = block_best(best, shared);
    if (args.parts == 1) {
        if (threadIdx.x == 0) args.out[row] = best.place;
        return;
    }
    if (threadIdx.x == 0) {
        __stcg(args.found + (u64)row * args.parts + part, make_uint2(__float_as_uint(best.value), best.place));
        __threadfence();
        is_last = ticket(args.tickets + row) == args.parts - 1;
        if (is_last) args.tickets[row] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    best = Best{__uint_as_float(LOWEST), NONE};
    for (u32 i = threadIdx.x; i < args.parts; i += THREADS) {
        const uint2 one = __ldcg(args.found + (u64)row * args.parts + i);
        best.take(__uint_as_float(one.x), one.y);
    }
    best = block_best(best, shared);
    if (threadIdx.x == 0) args.out[row] = best.place;
}

struct TopKArgs {
    const u32* x;          // [n_rows][columns]
    u32* out;              // [n_rows][k][2]
    uint2* found;          // [n_rows][parts][k] of {key, index}
    u32* tickets;          // [n_rows], zero before and after
    u32 columns, parts, part_columns, k;
};

// A number of the value's order; 0 for NaN and minus infinity. Infinity is as the largest number, minus zero as zero.
DEVICE u32 key_of(u32 bits) {
    const u32 size = bits & 0x7fffffffu;
    if (size > 0x7f800000u || bits == LOWEST) return 0;
    if (size == 0) return 0x80000000u;
    return bits == size ? 0x80000000u | min(size, 0x7f7fffffu) : 0x7fffffffu - size;
}
DEVICE u32 value_of(u32 key) {
    if (key == 0) return LOWEST;
    return key >= 0x80000000u ? key & 0x7fffffffu : 0x80000000u | (0x7fffffffu - key);
}

struct Selection {
    u32 counts[256], n_keys, digit, n_above, n_taken, n_equals[THREADS];
    uint2 taken[64];
};

// Finds the k largest of n entries and calls put(rank, key, index) for each place, {0, NONE} for those that are not there. The k-th
// largest key is found eight bits at a time from counts; then what lies above it is gathered, and the first of its equals.
template <class Entry, class Put> DEVICE void select(Selection& s, u32 n, u32 k, Entry entry, Put put) {
    const u32 thread = threadIdx.x;
    if (thread == 0) s.digit = s.n_above = s.n_taken = 0;
    u32 key = 0, mask = 0, wanted = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        s.counts[thread] = 0;
        __syncthreads();
        for (u32 i = thread; i < n; i += THREADS) {
            const u32 other = entry(i).x;
            if (other != 0 && (other & mask) == key) atomicAdd(&s.counts[other >> shift & 255], 1u);
        }
        __syncthreads();
        u32 above = 0;
        for (u32 d = thread + 1; d < 256; d++) above += s.counts[d];
        const u32 here = s.counts[thread];
        if (shift == 24) {
            if (thread == 0) s.n_keys = above + here;
            __syncthreads();
            wanted = min(k, s.n_keys);
        }
        if (above < wanted && wanted <= above + here) {
            s.digit = thread;
            s.n_above = above;
        }
        __syncthreads();
        key |= s.digit << shift;
        mask |= 255u << shift;
        wanted -= s.n_above;
    }
    const u32 n_found = min(k, s.n_keys), n_larger = n_found - wanted;
    for (u32 i = thread; i < n; i += THREADS) {
        const u32 other = entry(i).x;
        if (other > key) s.taken[min(atomicAdd(&s.n_taken, 1u), 63u)] = make_uint2(other, i);
    }
    // Equals in the order of their indexes: a thread has neighbours.
    const u32 each = (n + THREADS - 1) / THREADS, end = min((thread + 1) * each, n);
    u32 count = 0;
    for (u32 i = thread * each; i < end; i++) count += entry(i).x == key;
    s.n_equals[thread] = count;
    __syncthreads();
    u32 place = 0;
    for (u32 t = 0; t < thread; t++) place += s.n_equals[t];
    for (u32 i = thread * each; i < end && place < wanted; i++)
        if (entry(i).x == key) s.taken[min(n_larger + place++, 63u)] = make_uint2(key, i);
    __syncthreads();
    if (thread < k) {
        u32 rank = thread;
        uint2 result = make_uint2(0, NONE);
        if (thread < n_found) {
            const uint2 mine = s.taken[thread];
            rank = 0;
            for (u32 i = 0; i < n_found; i++) {
                const uint2 other = s.taken[i];
                rank += other.x > mine.x || (other.x == mine.x && other.y < mine.y);
            }
            result = make_uint2(mine.x, entry(mine.y).y);
        }
        put(rank, result);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) top_k(TopKArgs args) {
    static_assert(THREADS == 256, "a thread has a digit of eight bits");
    __shared__ Selection selection;
    __shared__ u32 is_last;
    let_next_start();
    wait_for_previous();
    const u32 row = blockIdx.y, part = blockIdx.x, k = args.k;
    const u32 begin = part * args.part_columns, n = min(args.part_columns, args.columns - begin);
    const u32* x = args.x + (u64)row * args.columns + begin;
    uint2* found = args.found + (u64)row * args.parts * k;
    u32* out = args.out + (u64)row * k * 2;
    auto finish = [&](u32 rank, uint2 result) {
        out[rank * 2] = value_of(result.x);
        out[rank * 2 + 1] = result.y;
    };
    auto of_row = [&](u32 i) { return make_uint2(key_of(x[i]), begin + i); };
    if (args.parts == 1) {
        select(selection, n, k, of_row, finish);
        return;
    }
    select(selection, n, k, of_row, [&](u32 rank, uint2 result) { __stcg(found + part * k + rank, result); });
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = ticket(args.tickets + row) == args.parts - 1;
        if (is_last) args.tickets[row] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    select(selection, args.parts * k, k, [&](u32 i) { return __ldcg(found + i); }, finish);
}
