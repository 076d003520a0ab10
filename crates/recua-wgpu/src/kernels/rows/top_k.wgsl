// top_k: out[r] = the k largest of x[r], largest first; ties go to the lowest index. Each is the value's bits and its index.
// x: [n_rows, columns]; found: [n_rows, parts, k] of (key, index); out: [n_rows, k, 2]; x and out begin at their starts.
// One workgroup takes one part, part_columns wide, of a row, and writes `found` if there are several parts; MERGE: one workgroup takes
// everything that was found for a row. The k-th largest key is determined one digit of eight bits at a time, from counts; then the keys
// above it are gathered, and the first ones equal to it. Bound by the latency of its steps; a part is read six times, but only the first
// time from memory.
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> found: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

struct Args { n_rows: u32, columns: u32, parts: u32, part_columns: u32, k: u32, x_start: u32, out_start: u32 }
var<immediate> args: Args;

const THREADS = 256u;
const NONE = 0xffffffffu;
const LOWEST = 0xff800000u; // the bits of minus infinity

var<workgroup> counts: array<atomic<u32>, THREADS>;
var<workgroup> n_keys: u32;
var<workgroup> digit: u32;
var<workgroup> n_above: u32; // keys with a larger digit
var<workgroup> n_taken: atomic<u32>;
var<workgroup> n_equals: array<u32, THREADS>;
var<workgroup> taken: array<vec2<u32>, 64>; // key, entry

// An integer that sorts like the value; 0 for NaN and minus infinity. An integer, because a device may flush tiny values to zero.
fn key_of(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u || bits == LOWEST {
        return 0u;
    }
    if size == 0u {
        return 0x80000000u;
    }
    return select(0x80000000u | min(size, 0x7f7fffffu), 0x7fffffffu - size, bits != size);
}

fn value_of(key: u32) -> u32 {
    if key == 0u {
        return LOWEST;
    }
    return select(0x80000000u | (0x7fffffffu - key), key & 0x7fffffffu, key >= 0x80000000u);
}

// The key and the index of an entry of this workgroup.
fn entry_at(row: u32, part: u32, i: u32) -> vec2<u32> {
#ifdef MERGE
    return found[row * args.parts * args.k + i];
#else
    let column = part * args.part_columns + i;
    return vec2<u32>(key_of(x[args.x_start + row * args.columns + column]), column);
#endif
}

@compute @workgroup_size(THREADS)
fn top_k(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let piece = group.y * groups.x + group.x;
#ifdef MERGE
    let row = piece;
    let part = 0u;
    let n = args.parts * args.k;
    let is_last = true;
#else
    let row = piece / args.parts;
    let part = piece % args.parts;
    let n = min(args.part_columns, args.columns - part * args.part_columns);
    let is_last = args.parts == 1u;
#endif
    if row >= args.n_rows {
        return;
    }
    if thread == 0u {
        digit = 0u;
        n_above = 0u;
        atomicStore(&n_taken, 0u);
    }

    // The key of the last one to take, and how many keys equal to it are taken.
    var key = 0u;
    var mask = 0u;
    var wanted = 0u;
    for (var step = 0u; step < 4u; step++) {
        let shift = 24u - 8u * step;
        atomicStore(&counts[thread], 0u);
        workgroupBarrier();
        for (var i = thread; i < n; i += THREADS) {
            let other = entry_at(row, part, i).x;
            if other != 0u && (other & mask) == key {
                atomicAdd(&counts[(other >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        var above = 0u;
        for (var d = thread + 1u; d < 256u; d++) {
            above += atomicLoad(&counts[d]);
        }
        let here = atomicLoad(&counts[thread]);
        if step == 0u {
            if thread == 0u {
                n_keys = above + here;
            }
            workgroupBarrier();
            wanted = min(args.k, n_keys);
        }
        if above < wanted && wanted <= above + here {
            digit = thread;
            n_above = above;
        }
        workgroupBarrier();
        key |= digit << shift;
        mask |= 255u << shift;
        wanted -= n_above;
    }

    let n_found = min(args.k, n_keys);
    let n_larger = n_found - wanted;
    for (var i = thread; i < n; i += THREADS) {
        let other = entry_at(row, part, i).x;
        if other > key {
            taken[min(atomicAdd(&n_taken, 1u), 63u)] = vec2<u32>(other, i);
        }
    }
    // Equal keys are taken in the order of their indexes: each thread has adjacent entries.
    let each = (n + THREADS - 1u) / THREADS;
    let end = min((thread + 1u) * each, n);
    var count = 0u;
    for (var i = thread * each; i < end; i++) {
        count += u32(entry_at(row, part, i).x == key);
    }
    n_equals[thread] = count;
    workgroupBarrier();
    var place = 0u;
    for (var t = 0u; t < thread; t++) {
        place += n_equals[t];
    }
    for (var i = thread * each; i < end && place < wanted; i++) {
        if entry_at(row, part, i).x == key {
            taken[min(n_larger + place, 63u)] = vec2<u32>(key, i);
            place++;
        }
    }
    workgroupBarrier();

    if thread >= args.k {
        return;
    }
    var rank = thread;
    var result = vec2<u32>(0u, NONE);
    if thread < n_found {
        let mine = taken[thread];
        rank = 0u;
        for (var i = 0u; i < n_found; i++) {
            let other = taken[i];
            rank += u32(other.x > mine.x || (other.x == mine.x && other.y < mine.y));
        }
        result = vec2<u32>(mine.x, entry_at(row, part, mine.y).y);
    }
    if is_last {
        let at = args.out_start + (row * args.k + rank) * 2u;
        out[at] = value_of(result.x);
        out[at + 1u] = result.y;
    } else {
        found[piece * args.k + rank] = result;
    }
}
