// argmax: out[r] = the index of the largest x[r]; ties go to the lowest index; NONE if nothing is above minus infinity.
// x: [n_rows, columns]; found: [n_rows, parts] of (value, index); out: [n_rows]; x and out begin at their starts.
// One workgroup takes one part, part_columns wide, of a row; if there are several parts, a thread of argmax_merge takes all of a row.
// Bound by memory: each element is read once. A maximum has the same bits in any order.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> found: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

struct Args { n_rows: u32, columns: u32, parts: u32, part_columns: u32, x_start: u32, out_start: u32 }
var<immediate> args: Args;

const NONE = 0xffffffffu;
const LOWEST = 0xff800000u; // the bits of minus infinity

var<workgroup> values: array<f32, 256>;
var<workgroup> places: array<u32, 256>;

fn wins(value: f32, place: u32, best: f32, best_place: u32) -> bool {
    return value > best || (value == best && place < best_place);
}

fn find(piece: u32, thread: u32) {
    let row = piece / args.parts;
    let begin = piece % args.parts * args.part_columns;
    let end = min(begin + args.part_columns, args.columns);
    var best = bitcast<f32>(LOWEST);
    var place = NONE;
    let first = args.x_start + row * args.columns;
    var i = begin + thread;
    // Four loads are in flight at once. A NaN is never larger than another value.
    for (; i + 768u < end; i += 1024u) {
        let four = vec4<f32>(x[first + i], x[first + i + 256u], x[first + i + 512u], x[first + i + 768u]);
        for (var j = 0u; j < 4u; j++) {
            if four[j] > best {
                best = four[j];
                place = i + 256u * j;
            }
        }
    }
    for (; i < end; i += 256u) {
        let value = x[first + i];
        if value > best {
            best = value;
            place = i;
        }
    }
    values[thread] = best;
    places[thread] = place;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half && wins(values[thread + half], places[thread + half], values[thread], places[thread]) {
            values[thread] = values[thread + half];
            places[thread] = places[thread + half];
        }
    }
}

@compute @workgroup_size(256)
fn argmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let piece = group.y * groups.x + group.x;
    if piece >= args.n_rows {
        return;
    }
    find(piece, thread);
    if thread == 0u {
        out[args.out_start + piece] = places[0];
    }
}

@compute @workgroup_size(256)
fn argmax_part(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let piece = group.y * groups.x + group.x;
    if piece >= args.n_rows * args.parts {
        return;
    }
    find(piece, thread);
    if thread == 0u {
        found[piece] = vec2<u32>(bitcast<u32>(values[0]), places[0]);
    }
}

@compute @workgroup_size(64)
fn argmax_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = (group.y * groups.x + group.x) * 64u + thread;
    if row >= args.n_rows {
        return;
    }
    var best = bitcast<f32>(LOWEST);
    var place = NONE;
    for (var part = 0u; part < args.parts; part++) {
        let one = found[row * args.parts + part];
        if wins(bitcast<f32>(one.x), one.y, best, place) {
            best = bitcast<f32>(one.x);
            place = one.y;
        }
    }
    out[args.out_start + row] = place;
}
