// rope_store: rotates q in place; rotates k, and writes it and v into the cache at the row's position. HEAD_NORM: first applies an RMS norm
// to each head of q and k.
// q: [n_rows, n_heads * head_dim]; k, v: [n_rows, n_kv_heads * head_dim]; table: [positions_max, pairs] of (cosine, sine).
// Inside a page and for each KV head, this device stores K as [head_dim / 8, 32 tokens] of 16 bytes (f32: [head_dim / 4, 32 tokens]), so
// that neighbouring threads of attention, which are tokens, read adjacent bytes; and V as [32 tokens, head_dim]. Not WIDE: K as words of
// four bytes, [head_dim / 2, 32 tokens] (f32: [head_dim, 32 tokens]). TENSOR: both as matrices of 16x16 for attention_tensor, K as
// [2][head_dim / 16][16 tokens][16 elements], V as [2][head_dim / 16][16 elements][16 tokens].
// One workgroup computes one head of one row. Bound by the latency of position, then page and angle: whatever can be is loaded together.
// A cache that is spread over several allocations needs a dispatch for each. Rows without a sequence are skipped.
#ifdef TENSOR
enable f16;
#endif
#import status
#import row_map
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read> k: array<f32>;
@group(0) @binding(6) var<storage, read> v: array<f32>;
@group(0) @binding(7) var<storage, read> table: array<f32>;
#ifdef WIDE
@group(0) @binding(8) var<storage, read_write> k_cache: array<vec4<u32>>;
#ifdef TENSOR
@group(0) @binding(9) var<storage, read_write> v_cache: array<f16>;
#else
@group(0) @binding(9) var<storage, read_write> v_cache: array<vec4<u32>>;
#endif
#else
@group(0) @binding(8) var<storage, read_write> k_cache: array<u32>;
@group(0) @binding(9) var<storage, read_write> v_cache: array<u32>;
#endif
#ifdef HEAD_NORM
@group(0) @binding(10) var<storage, read> q_norm: array<f32>;
@group(0) @binding(11) var<storage, read> k_norm: array<f32>;
#endif

#import args/rope_store
var<immediate> args: Args;

const THREADS = 64u;
override HEAD_MAX: u32 = 256u; // room for a head

var<workgroup> head: array<f32, HEAD_MAX>;
var<workgroup> value: array<f32, HEAD_MAX>; // the head of V that goes with one of K
#ifdef HEAD_NORM
var<workgroup> sums: array<f32, THREADS>;
#endif

#ifdef CACHE_F16
// The elements that this invocation has cut.
var<private> n_cut: u32;

// An element as an f16 cache holds it: what is finite and beyond its range is cut to it and counted; infinities and NaN stay.
fn held(x: f32) -> f32 {
    let magnitude = bitcast<u32>(x) & 0x7fffffffu;
    let is_cut = magnitude > 0x477fe000u && magnitude < 0x7f800000u;
    n_cut += u32(is_cut);
    return select(x, select(65504.0, -65504.0, x < 0.0), is_cut);
}

fn held_two(a: f32, b: f32) -> u32 {
    return pack2x16float(vec2<f32>(held(a), held(b)));
}
#endif

@compute @workgroup_size(THREADS)
fn rope_store(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let heads = args.n_heads + args.n_kv_heads;
    let unit = group.y * groups.x + group.x;
    if unit >= args.n_rows * heads {
        return;
    }
    let row = unit / heads;
    let h = unit % heads;
    let is_q = h < args.n_heads;
    let kv_head = h - args.n_heads;

    // The row's place in the cache, if it has one. Loads are always of valid places, and their results are used only if they are the row's.
    let position = positions[args.positions_start + row];
    let sequence = sequences[args.sequences_start + row];
    let q_first = args.q_start + row * args.q_stride + h * args.head_dim;
    let k_first = args.k_start + row * args.k_stride + kv_head * args.head_dim;
    let v_first = args.v_start + row * args.v_stride + kv_head * args.head_dim;
    // Two at a time, so that their loads overlap.
    for (var d = thread; d < args.head_dim; d += 2u * THREADS) {
        let second = min(d + THREADS, args.head_dim - 1u);
        if is_q {
            let a = q[q_first + d];
            let b = q[q_first + second];
            head[d] = a;
            if d + THREADS < args.head_dim {
                head[second] = b;
            }
        } else {
            let a = k[k_first + d];
            let b = k[k_first + second];
            let a_value = v[v_first + d];
            let b_value = v[v_first + second];
            head[d] = a;
            value[d] = a_value;
            if d + THREADS < args.head_dim {
                head[second] = b;
                value[second] = b_value;
            }
        }
    }
    let page_idx = position / args.page_tokens;
    let has_position = page_idx < args.pages_max && position < args.positions_max;
    let is_placed = sequence < args.n_sequences && has_position;
    let line = select(0u, sequence * args.pages_max + page_idx, is_placed);
    var page = pages[args.pages_start + line];
    let is_good = is_placed && page < args.n_pages;
    // The angles of the first pair, which is a thread's only pair in most models.
    let angles = args.table_start + select(0u, position * args.pairs, is_placed) * 2u;
    let first_pair = min(thread, max(args.pairs, 1u) - 1u);
    let first_cosine = table[angles + 2u * first_pair];
    let first_sine = table[angles + 2u * first_pair + 1u];
    if thread == 0u && !is_good && sequence != INERT {
        if sequence >= args.n_sequences {
            report(2u, sequence, args.n_sequences);
        } else if !has_position {
            report(3u, position, min(args.pages_max * args.page_tokens, args.positions_max));
        } else {
            report(4u, page, args.n_pages);
        }
    }
    workgroupBarrier();

#ifdef HEAD_NORM
    var sum = 0.0;
    for (var d = thread; d < args.head_dim; d += THREADS) {
        sum = fma(head[d], head[d], sum);
    }
    sums[thread] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sums[0] / f32(args.head_dim) + args.eps);
    for (var d = thread; d < args.head_dim; d += THREADS) {
        var weight: f32;
        if is_q {
            weight = q_norm[args.q_norm_start + d];
        } else {
            weight = k_norm[args.k_norm_start + d];
        }
        head[d] = head[d] * scale * weight;
    }
    workgroupBarrier();
#endif

    if is_good {
        for (var i = thread; i < args.pairs; i += THREADS) {
            var cosine = first_cosine;
            var sine = first_sine;
            if i != thread {
                cosine = table[angles + 2u * i];
                sine = table[angles + 2u * i + 1u];
            }
#ifdef HALVES
            let first = i;
            let second = i + args.pairs;
#else
            let first = 2u * i;
            let second = 2u * i + 1u;
#endif
            let a = head[first];
            let b = head[second];
            head[first] = fma(a, cosine, -(b * sine));
            head[second] = fma(a, sine, b * cosine);
        }
    }
    workgroupBarrier();
    if !is_good || (is_q && args.first_page > 0u) {
        return;
    }

    if is_q {
        for (var d = thread; d < args.head_dim; d += THREADS) {
            q[q_first + d] = head[d];
        }
        return;
    }
    if page < args.first_page || page - args.first_page >= args.allocation_pages {
        return;
    }
    page -= args.first_page;
    let page_offset = position % args.page_tokens;
#ifdef TENSOR
    let matrices = args.head_dim / 16u;
    // In elements.
    let place = ((page * args.n_kv_heads + kv_head) * 2u + page_offset / 16u) * matrices * 256u;
    for (var i = thread; i < args.head_dim / 8u; i += THREADS) {
        let d = 8u * i;
        let at = place + i / 2u * 256u + page_offset % 16u * 16u + i % 2u * 8u;
        k_cache[at / 8u] = vec4<u32>(
            held_two(head[d], head[d + 1u]),
            held_two(head[d + 2u], head[d + 3u]),
            held_two(head[d + 4u], head[d + 5u]),
            held_two(head[d + 6u], head[d + 7u]),
        );
    }
    for (var d = thread; d < args.head_dim; d += THREADS) {
        let at = place + d / 16u * 256u + d % 16u * 16u + page_offset % 16u;
        v_cache[at] = f16(held(value[d]));
    }
#else
#ifdef WIDE
#ifdef CACHE_F16
    let vectors = args.head_dim / 8u;
#else
    let vectors = args.head_dim / 4u;
#endif
    let place = (page * args.n_kv_heads + kv_head) * args.page_tokens * vectors;
    for (var i = thread; i < vectors; i += THREADS) {
#ifdef CACHE_F16
        let d = 8u * i;
        let rotated = vec4<u32>(
            held_two(head[d], head[d + 1u]),
            held_two(head[d + 2u], head[d + 3u]),
            held_two(head[d + 4u], head[d + 5u]),
            held_two(head[d + 6u], head[d + 7u]),
        );
        let values = vec4<u32>(
            held_two(value[d], value[d + 1u]),
            held_two(value[d + 2u], value[d + 3u]),
            held_two(value[d + 4u], value[d + 5u]),
            held_two(value[d + 6u], value[d + 7u]),
        );
#else
        let d = 4u * i;
        let rotated = bitcast<vec4<u32>>(vec4<f32>(head[d], head[d + 1u], head[d + 2u], head[d + 3u]));
        let values = bitcast<vec4<u32>>(vec4<f32>(value[d], value[d + 1u], value[d + 2u], value[d + 3u]));
#endif
        k_cache[place + i * args.page_tokens + page_offset] = rotated;
        v_cache[place + page_offset * vectors + i] = values;
    }
#else
#ifdef CACHE_F16
    let words = args.head_dim / 2u;
#else
    let words = args.head_dim;
#endif
    let place = (page * args.n_kv_heads + kv_head) * args.page_tokens * words;
    for (var i = thread; i < words; i += THREADS) {
#ifdef CACHE_F16
        let rotated = held_two(head[2u * i], head[2u * i + 1u]);
        let values = held_two(value[2u * i], value[2u * i + 1u]);
#else
        let rotated = bitcast<u32>(head[i]);
        let values = bitcast<u32>(value[i]);
#endif
        k_cache[place + i * args.page_tokens + page_offset] = rotated;
        v_cache[place + page_offset * words + i] = values;
    }
#endif
#endif
#ifdef CACHE_F16
    report_cut(n_cut);
#endif
}
