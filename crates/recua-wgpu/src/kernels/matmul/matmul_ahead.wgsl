// Shared by matmul_coop_16.wgsl and matmul_coop_64.wgsl: parts of a weight row (64 columns each, counted from its start) that are loaded
// before they are used. The kernel declares `tile`, the tile of this subgroup.
const SUBGROUPS: u32 = 8u;
// Ranges of K.
const SPLITS: u32 = 8u;
// Vectors of four f16 from one row of a staged run to the next, padded so that they lie in different banks.
const STRIDE: u32 = 6u;

// [subgroup][weight row][16 columns]
var<workgroup> staged: array<vec4<f16>, SUBGROUPS * 32u * STRIDE>;

// The heads for runs 0 and 2, and for runs 1 and 3.
alias PartHeads = array<Head, 2>;
alias PartCodes = array<Codes, 2>;

// The first vector of the unit with part `p`; if there is none, of the row's last unit.
fn unit_at(p: u32) -> u32 {
    return (tile * args.units + min(p / PARTS, args.units - 1u)) * UNIT_VECTORS;
}

fn heads_at(p: u32) -> PartHeads {
    let unit = unit_at(p);
    return PartHeads(head(unit, lane, 0u), head(unit, lane, 1u));
}

fn codes_at(p: u32) -> PartCodes {
    let unit = unit_at(p);
    let part = p % PARTS;
    return PartCodes(codes(unit, lane, part, 0u), codes(unit, lane, part, 1u));
}

// The index of run `i` of part `p` among the runs of x; the run after the last one is zero.
fn x_run(p: u32, i: u32, is_there: bool) -> u32 {
    let run = p / PARTS * PARTS * 4u + column(p % PARTS, i) / 16u;
    return select(args.units * PARTS * 4u, run, is_there && p < args.units * PARTS);
}

// Decodes a run of this lane's weight row into workgroup memory.
fn stage_run(v: Values) {
    let at = (subgroup * 32u + lane) * STRIDE;
#for J in 0 1 2 3
    staged[at + $Ju] = v[$J];
#end
}
