// What the kernels of attention share: bindings, arguments, the cache, and the arithmetic that gives a query the same bits in each.
//
// A chunk of 128 tokens has a largest score, weights and sums of its own; chunks are merged in order from position 0. A score is four
// chains, each over a quarter of the head's units of eight, added in order. Of a chunk's weights, 16 classes (token mod 16) are summed
// in order, then the classes; of its weighted V, 8 runs of 16 tokens are summed in order, then the runs. All by multiply-adds that are
// written out: a query's bits depend on nothing but itself and its sequence. (Online softmax and split KV: FlashAttention-2,
// Flash-Decoding.)
// Slots behind a row's position may hold NaN: their scores are replaced, their V is not read.
#import status
#import row_map
#import math
@group(0) @binding(4) var<storage, read> q: array<f32>;
#ifdef TENSOR
// Matrices are loaded in pieces that a driver reads at once: it reads f16 one by one from an array of pairs.
alias Piece = vec4<f16>;
#else
#ifdef WIDE
// Heads of a multiple of eight elements, and a cache that begins at a multiple of 16 bytes: it is read 16 bytes at a time.
alias Piece = vec4<u32>;
#else
alias Piece = u32;
#endif
#endif
@group(0) @binding(5) var<storage, read> k_cache: array<Piece>;
@group(0) @binding(6) var<storage, read> v_cache: array<Piece>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;
// Chunks that are put together in the end; see attention.
@group(0) @binding(8) var<storage, read_write> parts: array<vec4<f32>>;
#ifdef WINDOWS
// A cache that one binding cannot hold: k_cache and v_cache are its first window_pages pages, these the next ones.
@group(0) @binding(9) var<storage, read> k_cache_1: array<Piece>;
@group(0) @binding(10) var<storage, read> v_cache_1: array<Piece>;
@group(0) @binding(11) var<storage, read> k_cache_2: array<Piece>;
@group(0) @binding(12) var<storage, read> v_cache_2: array<Piece>;
@group(0) @binding(13) var<storage, read> k_cache_3: array<Piece>;
@group(0) @binding(14) var<storage, read> v_cache_3: array<Piece>;
#endif


struct Args {
    rows: RowMap,
    first_row: u32,
    end_row: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_pages: u32,
    head_dim: u32,
    scale: f32,
    // Where each begins; those of the cache in what it is an array of.
    q_start: u32,
    k_start: u32,
    v_start: u32,
    out_start: u32,
    group: u32, // query heads of a KV head
    block_heads: u32, // of which a workgroup takes so many
    block_rows: u32, // neighbouring rows of a sequence that one workgroup of attention_rows takes; 0 without it
    n_chunks: u32,
    q_stride: u32, // from a row of q to the next
#ifdef WINDOWS
    window_pages: u32,
    k_starts: array<u32, 3>,
    v_starts: array<u32, 3>,
#endif
}
var<immediate> args: Args;

const PAGE = 32u;
const CHUNK = 128u; // and the threads of a workgroup
const RUN = 16u;
const LOWEST = -3.4028234e38;
override HEAD_MAX: u32 = 256u; // room for a head

// What chunks before have come to, for four queries.
struct Sum { largest: vec4<f32>, total: vec4<f32>, keep: vec4<f32>, take: vec4<f32> }

fn nothing() -> Sum {
    return Sum(vec4<f32>(LOWEST), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
}

// Takes a chunk in: sums are to become fma(sum, keep, chunk * take).
fn merge(sum: Sum, chunk_largest: vec4<f32>, chunk_total: vec4<f32>, sees: vec4<bool>) -> Sum {
    let m = select(sum.largest, max(sum.largest, chunk_largest), sees);
    let keep = exp_negative(sum.largest - m);
    let take = exp_negative(min(chunk_largest - m, vec4<f32>(0.0)));
    let t = select(sum.total, fma(sum.total, keep, chunk_total * take), sees);
    return Sum(m, t, keep, take);
}

fn take_in(sum: vec4<f32>, chunk: vec4<f32>, by: Sum, sees: vec4<bool>) -> vec4<f32> {
    return select(sum, fma(sum, by.keep, chunk * by.take), sees);
}

// What a score weighs in its chunk. One that was replaced is far below the largest, unless all are.
fn weight_of(score: vec4<f32>, chunk_largest: vec4<f32>) -> vec4<f32> {
    return select(exp_negative(score - chunk_largest), vec4<f32>(0.0), score == vec4<f32>(LOWEST));
}

// Four elements of a head added to the scores of four queries.
fn dot_four(
    score: vec4<f32>,
    k: vec4<f32>,
    q_0: vec4<f32>,
    q_1: vec4<f32>,
    q_2: vec4<f32>,
    q_3: vec4<f32>,
) -> vec4<f32> {
    let two = fma(vec4<f32>(k.y), q_1, fma(vec4<f32>(k.x), q_0, score));
    return fma(vec4<f32>(k.w), q_3, fma(vec4<f32>(k.z), q_2, two));
}

// Tokens that a row sees; none if its position is out of range.
fn n_seen(row: u32) -> u32 {
    let position = positions[args.rows.positions_start + row];
    if position >= args.rows.pages_max * PAGE {
        return 0u;
    }
    return position + 1u;
}

fn sequence_of(row: u32) -> u32 {
    return sequences[args.rows.sequences_start + row];
}

// Workgroups of a row or of a block of rows: heads by block_heads, and heads of more than 128 elements by these, in the weighted sum.
fn blocks_of_head() -> u32 {
    return (args.group + args.block_heads - 1u) / args.block_heads;
}
fn dim_parts() -> u32 {
    return (args.head_dim + 127u) / 128u;
}

// Where a page's KV head begins: the window it is in, and its place there.
struct At { window: u32, place: u32 }

fn page_at(sequence: u32, page_idx: u32, kv_head: u32) -> At {
    var page = pages[args.rows.pages_start + sequence * args.rows.pages_max + page_idx];
    if page >= args.n_pages {
        report(7u, page, args.n_pages);
        page = 0u;
    }
    var window = 0u;
#ifdef WINDOWS
    window = page / args.window_pages;
    page = page % args.window_pages;
#endif
    return At(window, (page * args.n_kv_heads + kv_head) * PAGE * token_size());
}

fn k_at(at: At, i: u32) -> Piece {
#ifdef WINDOWS
    switch at.window {
        case 0u: { return k_cache[args.k_start + at.place + i]; }
        case 1u: { return k_cache_1[args.k_starts[0] + at.place + i]; }
        case 2u: { return k_cache_2[args.k_starts[1] + at.place + i]; }
        default: { return k_cache_3[args.k_starts[2] + at.place + i]; }
    }
#else
    return k_cache[args.k_start + at.place + i];
#endif
}

fn v_at(at: At, i: u32) -> Piece {
#ifdef WINDOWS
    switch at.window {
        case 0u: { return v_cache[args.v_start + at.place + i]; }
        case 1u: { return v_cache_1[args.v_starts[0] + at.place + i]; }
        case 2u: { return v_cache_2[args.v_starts[1] + at.place + i]; }
        default: { return v_cache_3[args.v_starts[2] + at.place + i]; }
    }
#else
    return v_cache[args.v_start + at.place + i];
#endif
}

#ifdef TENSOR
fn token_size() -> u32 {
    return args.head_dim / 4u;
}
#else
#ifdef SPLIT
// Puts the chunks of four queries together: lines of 130, as attention says, `step` apart. What element `thread` comes to.
fn merged(first: u32, step: u32, n: u32, thread: u32) -> vec4<f32> {
    let all = vec4<bool>(true);
    var sum = nothing();
    var value = vec4<f32>(0.0);
    // Four chunks are under way at once.
    for (var chunk = 0u; chunk < n; chunk += 4u) {
        let place = first + chunk * step;
        let place_1 = first + min(chunk + 1u, n - 1u) * step;
        let place_2 = first + min(chunk + 2u, n - 1u) * step;
        let place_3 = first + min(chunk + 3u, n - 1u) * step;
        let values = array<vec4<f32>, 4>(
            parts[place + thread], parts[place_1 + thread], parts[place_2 + thread], parts[place_3 + thread]);
        let largest = array<vec4<f32>, 4>(
            parts[place + 128u], parts[place_1 + 128u], parts[place_2 + 128u], parts[place_3 + 128u]);
        let totals = array<vec4<f32>, 4>(
            parts[place + 129u], parts[place_1 + 129u], parts[place_2 + 129u], parts[place_3 + 129u]);
        sum = merge(sum, largest[0], totals[0], all);
        value = take_in(value, values[0], sum, all);
        if chunk + 1u < n {
            sum = merge(sum, largest[1], totals[1], all);
            value = take_in(value, values[1], sum, all);
        }
        if chunk + 2u < n {
            sum = merge(sum, largest[2], totals[2], all);
            value = take_in(value, values[2], sum, all);
        }
        if chunk + 3u < n {
            sum = merge(sum, largest[3], totals[3], all);
            value = take_in(value, values[3], sum, all);
        }
    }
    return value * (vec4<f32>(1.0) / sum.total);
}
#endif

// Eight neighbouring elements of a token's K or V as the cache has them: unit i is elements 8 * i to 8 * i + 7. rope_store writes them.
#ifdef CACHE_F16
struct Unit { bits: vec4<u32> }
#else
struct Unit { bits: vec4<u32>, more: vec4<u32> }
#endif

#ifdef WIDE
#ifdef CACHE_F16
fn token_size() -> u32 {
    return args.head_dim / 8u;
}
fn load_k(at: At, i: u32, slot: u32) -> Unit {
    return Unit(k_at(at, i * PAGE + slot));
}
fn load_v(at: At, i: u32, slot: u32) -> Unit {
    return Unit(v_at(at, slot * token_size() + i));
}
#else
fn token_size() -> u32 {
    return args.head_dim / 4u;
}
fn load_k(at: At, i: u32, slot: u32) -> Unit {
    return Unit(k_at(at, 2u * i * PAGE + slot), k_at(at, (2u * i + 1u) * PAGE + slot));
}
fn load_v(at: At, i: u32, slot: u32) -> Unit {
    let place = slot * token_size() + 2u * i;
    return Unit(v_at(at, place), v_at(at, place + 1u));
}
#endif
#else
#ifdef CACHE_F16
fn token_size() -> u32 {
    return args.head_dim / 2u;
}
#else
fn token_size() -> u32 {
    return args.head_dim;
}
#endif
// A word, or zeros behind the head.
fn k_word(at: At, i: u32, slot: u32) -> u32 {
    if i >= token_size() {
        return 0u;
    }
    return k_at(at, i * PAGE + slot);
}
fn v_word(at: At, i: u32, slot: u32) -> u32 {
    if i >= token_size() {
        return 0u;
    }
    return v_at(at, slot * token_size() + i);
}
fn k_words(at: At, i: u32, slot: u32) -> vec4<u32> {
    return vec4<u32>(
        k_word(at, i, slot), k_word(at, i + 1u, slot), k_word(at, i + 2u, slot), k_word(at, i + 3u, slot));
}
fn v_words(at: At, i: u32, slot: u32) -> vec4<u32> {
    return vec4<u32>(
        v_word(at, i, slot), v_word(at, i + 1u, slot), v_word(at, i + 2u, slot), v_word(at, i + 3u, slot));
}
#ifdef CACHE_F16
fn load_k(at: At, i: u32, slot: u32) -> Unit {
    return Unit(k_words(at, 4u * i, slot));
}
fn load_v(at: At, i: u32, slot: u32) -> Unit {
    return Unit(v_words(at, 4u * i, slot));
}
#else
fn load_k(at: At, i: u32, slot: u32) -> Unit {
    return Unit(k_words(at, 8u * i, slot), k_words(at, 8u * i + 4u, slot));
}
fn load_v(at: At, i: u32, slot: u32) -> Unit {
    return Unit(v_words(at, 8u * i, slot), v_words(at, 8u * i + 4u, slot));
}
#endif
#endif

#ifdef CACHE_F16
fn halves(word: u32) -> vec2<f32> {
    return vec2<f32>(unpack2x16float(word).x, unpack2x16float(word >> 16u).x);
}
fn low(unit: Unit) -> vec4<f32> {
    return vec4<f32>(halves(unit.bits.x), halves(unit.bits.y));
}
fn high(unit: Unit) -> vec4<f32> {
    return vec4<f32>(halves(unit.bits.z), halves(unit.bits.w));
}
#else
fn low(unit: Unit) -> vec4<f32> {
    return bitcast<vec4<f32>>(unit.bits);
}
fn high(unit: Unit) -> vec4<f32> {
    return bitcast<vec4<f32>>(unit.more);
}
#endif

// The weighted sum of eight elements of V, for four queries each.
struct Eight {
    e_0: vec4<f32>,
    e_1: vec4<f32>,
    e_2: vec4<f32>,
    e_3: vec4<f32>,
    e_4: vec4<f32>,
    e_5: vec4<f32>,
    e_6: vec4<f32>,
    e_7: vec4<f32>,
}

// A token's V added to it.
fn weigh(sum: Eight, unit: Unit, weight: vec4<f32>) -> Eight {
    let a = low(unit);
    let b = high(unit);
    return Eight(
        fma(vec4<f32>(a.x), weight, sum.e_0),
        fma(vec4<f32>(a.y), weight, sum.e_1),
        fma(vec4<f32>(a.z), weight, sum.e_2),
        fma(vec4<f32>(a.w), weight, sum.e_3),
        fma(vec4<f32>(b.x), weight, sum.e_4),
        fma(vec4<f32>(b.y), weight, sum.e_5),
        fma(vec4<f32>(b.z), weight, sum.e_6),
        fma(vec4<f32>(b.w), weight, sum.e_7),
    );
}

fn no_sum() -> Eight {
    let zero = vec4<f32>(0.0);
    return Eight(zero, zero, zero, zero, zero, zero, zero, zero);
}
#endif
