//! The sampler: each filter exactly, on logits written out here, and the statistics of many draws.

use recua_compute::TOP_K_MAX;
use recua_engine::sampler::philox::{philox4x32, uniform};
use recua_engine::sampler::{Draw, Sampler, SamplingDefaults, SamplingParams, Want};
use recua_gguf::{Gguf, Header, Value, Writer};

/// Logits whose probabilities are these.
fn logits_of(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn sample(
    sampler: &mut Sampler,
    logits: &[f32],
    params: &SamplingParams,
    choice: u32,
    position: usize,
) -> u32 {
    let tokens = vec![0; position];
    let draw = Draw { params, choice, tokens: &tokens, n_prompt: position };
    sampler.sample(&mut logits.to_vec(), &draw).unwrap()
}

/// How often each token comes out of `n` draws at different positions.
fn histogram(logits: &[f32], params: &SamplingParams, n: usize) -> Vec<usize> {
    let mut sampler = Sampler::new();
    let mut counts = vec![0; logits.len()];
    for position in 0..n {
        counts[sample(&mut sampler, logits, params, 0, position) as usize] += 1;
    }
    counts
}

/// The tokens that can be chosen.
fn survivors(logits: &[f32], params: &SamplingParams) -> Vec<usize> {
    // Hot enough that each of the few survivors is drawn sooner or later.
    let params = SamplingParams { temperature: 50.0, ..params.clone() };
    let counts = histogram(logits, &params, 400);
    (0..logits.len()).filter(|&token| counts[token] > 0).collect()
}

/// The logits after the penalties.
fn penalized(logits: &[f32], params: &SamplingParams, tokens: &[u32], n_prompt: usize) -> Vec<f32> {
    let mut logits = logits.to_vec();
    Sampler::new().sample(&mut logits, &Draw { params, choice: 0, tokens, n_prompt }).unwrap();
    logits
}

/// Pearson's chi-square sum over the tokens that may occur; the others must not occur.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> f64 {
    let n: usize = counts.iter().sum();
    let mut sum = 0.0;
    for (&count, &p) in counts.iter().zip(probabilities) {
        let expected = p * n as f64;
        if p == 0.0 {
            assert_eq!(count, 0, "a token that was cut");
        } else {
            sum += (count as f64 - expected).powi(2) / expected;
        }
    }
    sum
}

fn normalized(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

fn hot() -> SamplingParams {
    SamplingParams { temperature: 1.0, ..SamplingParams::default() }
}

#[test]
fn philox_agrees_with_its_authors() {
    // From the known answers published with Random123.
    let cases = [
        ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 2], [u32::MAX; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0xa409_3822, 0x299f_31d0],
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (key, counter, expected) in cases {
        assert_eq!(philox4x32(key, counter), expected);
    }
}

#[test]
fn random_numbers_depend_on_seed_choice_and_position_alone() {
    let base = uniform(1, 2, 3);
    assert_eq!(uniform(1, 2, 3), base);
    for other in [uniform(2, 2, 3), uniform(1, 3, 3), uniform(1, 2, 4), uniform(1 << 32, 2, 3)] {
        assert_ne!(other, base);
    }
    assert!((0..10_000).map(|position| uniform(7, 0, position)).all(|point| (0.0..1.0).contains(&point)));
}

#[test]
fn greedy_takes_the_highest_and_ties_go_to_the_lowest_id() {
    let mut sampler = Sampler::new();
    let greedy = SamplingParams::default();
    let nan = f32::NAN;
    for (logits, expected) in [
        (vec![1.0, 3.0, 2.0], 1),
        (vec![1.0, 3.0, 3.0], 1),
        (vec![-0.0, 0.0], 0),
        (vec![0.0, -0.0], 0),
        (vec![nan, -1.0, nan], 1),
        (vec![f32::NEG_INFINITY, -1e30], 1),
        (vec![f32::MAX, f32::INFINITY], 1),
    ] {
        assert_eq!(sample(&mut sampler, &logits, &greedy, 0, 0), expected, "{logits:?}");
    }
    let logits = [1.0, 3.0, 3.0, 2.0];
    for params in [
        SamplingParams { top_k: 1, ..hot() },
        SamplingParams { top_p: 0.0, ..hot() },
        SamplingParams { min_p: 1.0, temperature: 1e-6, top_k: 3, ..hot() },
    ] {
        let first = sample(&mut sampler, &logits, &params, 0, 0);
        assert!(first == 1 || params.min_p == 1.0 && first == 2, "{params:?}: {first}");
    }
}

#[test]
fn nothing_to_choose_from_is_an_error() {
    for params in [SamplingParams::default(), hot(), SamplingParams { top_k: 2, top_p: 0.5, ..hot() }] {
        for logits in [vec![], vec![f32::NAN; 3], vec![f32::NEG_INFINITY; 3]] {
            let draw = Draw { params: &params, choice: 0, tokens: &[], n_prompt: 0 };
            let error = Sampler::new().sample(&mut logits.clone(), &draw).unwrap_err();
            assert_eq!(error.n_vocab, logits.len());
        }
    }
}

#[test]
fn useless_logits_are_never_drawn() {
    let logits = [f32::NAN, 1.0, f32::NEG_INFINITY, 0.5, f32::NAN];
    for params in [hot(), SamplingParams { top_k: 4, ..hot() }, SamplingParams { top_p: 0.999, ..hot() }] {
        assert_eq!(survivors(&logits, &params), [1, 3], "{params:?}");
    }
    // An infinite logit outweighs every other.
    assert_eq!(survivors(&[1.0, f32::INFINITY, 3.0], &hot()), [1]);
}

#[test]
fn top_k_keeps_k() {
    let logits = [0.1, 0.5, 0.3, 0.5, 0.2];
    let top_k = |top_k| SamplingParams { top_k, ..hot() };
    assert_eq!(survivors(&logits, &top_k(2)), [1, 3]);
    assert_eq!(survivors(&logits, &top_k(3)), [1, 2, 3]);
    assert_eq!(survivors(&logits, &top_k(99)), [0, 1, 2, 3, 4]);
    assert_eq!(survivors(&logits, &top_k(0)), [0, 1, 2, 3, 4]);
    // Ties go to the lowest ids.
    assert_eq!(survivors(&[1.0; 6], &top_k(2)), [0, 1]);
}

#[test]
fn top_p_keeps_the_token_that_reaches_it() {
    let logits = logits_of(&[0.1, 0.4, 0.2, 0.3]);
    let top_p = |top_p| SamplingParams { top_p, ..hot() };
    for (p, expected) in [
        (0.01, &[1][..]),
        (0.39, &[1]),
        (0.41, &[1, 3]),
        (0.69, &[1, 3]),
        (0.71, &[1, 2, 3]),
        (0.89, &[1, 2, 3]),
        (0.91, &[0, 1, 2, 3]),
        (1.0, &[0, 1, 2, 3]),
    ] {
        assert_eq!(survivors(&logits, &top_p(p)), expected, "top_p {p}");
    }
    // After top-k it sees only what top-k kept: 0.4 and 0.3 of 0.7.
    assert_eq!(survivors(&logits, &SamplingParams { top_k: 2, ..top_p(0.56) }), [1]);
    assert_eq!(survivors(&logits, &SamplingParams { top_k: 2, ..top_p(0.58) }), [1, 3]);
}

#[test]
fn min_p_is_a_fraction_of_the_highest_probability() {
    let logits = logits_of(&[0.1, 0.4, 0.2, 0.3]);
    let min_p = |min_p| SamplingParams { min_p, ..hot() };
    for (p, expected) in
        [(0.0, &[0, 1, 2, 3][..]), (0.24, &[0, 1, 2, 3]), (0.26, &[1, 2, 3]), (0.51, &[1, 3]), (0.76, &[1])]
    {
        assert_eq!(survivors(&logits, &min_p(p)), expected, "min_p {p}");
    }
    assert_eq!(survivors(&[2.0, 1.0, 2.0], &min_p(1.0)), [0, 2]);
}

#[test]
fn the_repeat_penalty_is_llama_cpps() {
    let params = SamplingParams { repeat_penalty: 2.0, repeat_last_n: 3, ..SamplingParams::default() };
    let logits = [4.0, -1.0, 3.0, 0.0, 5.0];
    // Token 4 lies too far back; 0 occurs twice and counts once; the prompt counts.
    assert_eq!(penalized(&logits, &params, &[4, 0, 1, 0], 4), [2.0, -2.0, 3.0, 0.0, 5.0]);
    assert_eq!(penalized(&logits, &params, &[2], 0), [4.0, -1.0, 1.5, 0.0, 5.0]);
    let off = SamplingParams { repeat_last_n: 0, ..params };
    assert_eq!(penalized(&logits, &off, &[0, 1, 2], 3), logits);
}

#[test]
fn frequency_and_presence_count_the_answer_only() {
    let params =
        SamplingParams { frequency_penalty: 0.5, presence_penalty: 1.0, ..SamplingParams::default() };
    let logits = [4.0, -1.0, 3.0, 0.0];
    assert_eq!(penalized(&logits, &params, &[2, 2, 0, 1, 0], 2), [2.0, -2.5, 3.0, 0.0]);
    assert_eq!(penalized(&logits, &params, &[2, 2, 0], 3), logits);
    // A token beyond the logits, as a vocabulary larger than the model's could have, is ignored.
    assert_eq!(penalized(&logits, &params, &[9], 0), logits);
}

#[test]
fn the_workspace_carries_nothing_over() {
    let mut sampler = Sampler::new();
    let wide: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32 / 1000.0).collect();
    let draws = [
        (&wide[..], SamplingParams { repeat_penalty: 1.3, ..hot() }),
        (&wide[..7], SamplingParams { top_k: 3, ..hot() }),
        (&wide[..], SamplingParams { top_p: 0.9, ..hot() }),
        (&wide[..900], SamplingParams { min_p: 0.1, presence_penalty: 0.5, ..hot() }),
    ];
    for _ in 0..3 {
        for (logits, params) in &draws {
            let fresh = sample(&mut Sampler::new(), logits, params, 1, 9);
            assert_eq!(sample(&mut sampler, logits, params, 1, 9), fresh);
        }
    }
}

/// With a top-k, a draw needs only the largest few logits; penalties may raise others above them.
#[test]
fn the_largest_few_logits_give_the_token_that_all_give() {
    let n = 5_000u32;
    // Many equal logits, and some that cannot be chosen.
    let logit = |i: u32| match i % 97 {
        0 => f32::NAN,
        1 => f32::NEG_INFINITY,
        _ => (uniform(8, 0, u64::from(i)) * 40.0).floor() as f32 / 4.0 - 5.0,
    };
    let few: Vec<f32> = (0..n).map(|i| if i % 1000 == 7 { logit(i) } else { f32::NEG_INFINITY }).collect();
    for logits in [(0..n).map(logit).collect::<Vec<f32>>(), few, vec![f32::NAN; 9]] {
        let mut ranked: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        ranked.retain(|(_, logit)| *logit > f32::NEG_INFINITY);
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let ranked = ranked.iter().map(|(token, logit)| [(logit + 0.0).to_bits(), *token]);
        let none = std::iter::repeat([f32::NEG_INFINITY.to_bits(), u32::MAX]);
        let top: Vec<[u32; 2]> = ranked.chain(none).take(TOP_K_MAX).collect();
        let mut sampler = Sampler::new();
        for (top_k, top_p, min_p) in [(2, 1.0, 0.0), (40, 0.95, 0.05), (64, 0.5, 0.0), (64, 1.0, 0.3)] {
            let params = SamplingParams { temperature: 0.8, top_k, top_p, min_p, seed: 5, ..hot() };
            assert_eq!(params.want(), Want::TopK);
            for n_tokens in 0..60 {
                let draw = Draw { params: &params, choice: 2, tokens: &vec![1; n_tokens], n_prompt: 0 };
                let expected = sampler.sample(&mut logits.clone(), &draw).ok();
                assert_eq!(sampler.sample_top(&top, &draw), expected, "{params:?}");
            }
        }
    }
    for params in [
        SamplingParams { top_k: 0, ..hot() },
        SamplingParams { top_k: 65, ..hot() },
        SamplingParams { top_k: 5, repeat_penalty: 1.1, ..hot() },
        SamplingParams { frequency_penalty: 0.1, ..SamplingParams::default() },
        SamplingParams { top_k: 5, presence_penalty: -0.1, ..hot() },
    ] {
        assert_eq!(params.want(), Want::Logits, "{params:?}");
    }
    assert_eq!(SamplingParams::default().want(), Want::Token);
}

/// The fast paths for a large vocabulary (gathering for top-k, buckets for top-p) against a full sort.
#[test]
fn a_large_vocabulary_is_cut_like_a_sorted_one() {
    let n = 40_000u32;
    let logits: Vec<f32> =
        (0..n).map(|i| (uniform(5, 0, u64::from(i)) * 64.0).floor() as f32 / 8.0).collect();
    let mut ranked: Vec<u32> = (0..n).collect();
    ranked.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    let probability = |id: u32| f64::from(logits[id as usize]).exp();
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();

    for (top_k, top_p) in [(40, 1.0), (3000, 1.0), (0, 0.01), (0, 0.5), (0, 0.95), (2000, 0.7)] {
        let mut kept = ranked.clone();
        if top_k > 0 {
            kept.truncate(top_k);
        }
        let total = if top_k > 0 { kept.iter().map(|&id| probability(id)).sum() } else { total };
        let mut mass = 0.0;
        if top_p < 1.0 {
            let n_kept = kept.iter().take_while(|&&id| {
                let goes_on = mass < f64::from(top_p) * total;
                mass += probability(id);
                goes_on
            });
            let n_kept = n_kept.count();
            kept.truncate(n_kept);
        }
        // Temperature 1 and the same point: the walk over the weights must end at the same token.
        if top_k == 0 {
            kept.sort_unstable();
        }
        let weights: Vec<f64> = kept.iter().map(|&id| probability(id)).collect();
        let total: f64 = weights.iter().sum();
        let params = SamplingParams { top_k, top_p, seed: 3, ..hot() };
        let mut sampler = Sampler::new();
        for position in 0..50 {
            let target = uniform(3, 0, position as u64) * total;
            let mut mass = 0.0;
            let expected = kept.iter().zip(&weights).find(|(_, weight)| {
                mass += **weight;
                mass > target
            });
            let got = sample(&mut sampler, &logits, &params, 0, position);
            assert_eq!(
                Some(got),
                expected.map(|(id, _)| *id),
                "top_k {top_k}, top_p {top_p}, position {position}"
            );
        }
    }
}

#[test]
fn seeds_reproduce_and_choices_differ() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 10) as f32 / 5.0).collect();
    let mut sampler = Sampler::new();
    let mut stream = |seed, choice| -> Vec<u32> {
        let params = SamplingParams { seed, ..hot() };
        (0..50).map(|position| sample(&mut sampler, &logits, &params, choice, position)).collect()
    };
    let base = stream(42, 0);
    assert_eq!(stream(42, 0), base);
    for other in [stream(43, 0), stream(42, 1), stream(42 | 1 << 40, 0)] {
        let n_equal = other.iter().zip(&base).filter(|(a, b)| a == b).count();
        assert!(n_equal < 10, "{n_equal} of 50 tokens are equal");
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let weights = [0.05, 0.3, 0.15, 0.02, 0.25, 0.13, 0.1];
    let logits = logits_of(&weights.map(|weight| weight as f32));
    let params = SamplingParams { seed: 11, ..hot() };
    // 6 degrees of freedom: 99.9 % of fair samplers stay below 22.5.
    let sum = chi_square(&histogram(&logits, &params, 20_000), &weights);
    assert!(sum < 22.5, "temperature 1: {sum}");

    for temperature in [0.5, 2.0] {
        let expected = normalized(&weights.map(|weight| weight.powf(1.0 / f64::from(temperature))));
        let params = SamplingParams { temperature, ..params.clone() };
        let sum = chi_square(&histogram(&logits, &params, 20_000), &expected);
        assert!(sum < 22.5, "temperature {temperature}: {sum}");
    }

    // 0.3 + 0.25 + 0.15 = 0.7 reaches 0.6: three are left, two degrees of freedom; the temperature comes afterwards.
    for temperature in [1.0, 3.0] {
        let kept = [0.0, 0.3, 0.15, 0.0, 0.25, 0.0, 0.0];
        let expected = normalized(&kept.map(|weight: f64| weight.powf(1.0 / f64::from(temperature))));
        let params = SamplingParams { temperature, top_p: 0.6, ..params.clone() };
        let sum = chi_square(&histogram(&logits, &params, 20_000), &expected);
        assert!(sum < 13.8, "top_p 0.6, temperature {temperature}: {sum}");
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let check = |params: SamplingParams, expected: &str| {
        assert_eq!(params.validate().unwrap_err().to_string(), expected);
    };
    let fine = SamplingParams::default;
    fine().validate().unwrap();
    check(
        SamplingParams { temperature: f32::NAN, ..fine() },
        "temperature is NaN; it must be a number from 0 to 100",
    );
    check(
        SamplingParams { temperature: -0.5, ..fine() },
        "temperature is -0.5; it must be a number from 0 to 100",
    );
    check(SamplingParams { top_p: 1.5, ..fine() }, "top_p is 1.5; it must be a number from 0 to 1");
    check(SamplingParams { min_p: -1.0, ..fine() }, "min_p is -1; it must be a number from 0 to 1");
    check(
        SamplingParams { repeat_penalty: 0.0, ..fine() },
        "repeat_penalty is 0; it must be a number from 0.01 to 100",
    );
    check(
        SamplingParams { frequency_penalty: f32::INFINITY, ..fine() },
        "frequency_penalty is inf; it must be a number from -2 to 2",
    );
    check(
        SamplingParams { presence_penalty: -2.5, ..fine() },
        "presence_penalty is -2.5; it must be a number from -2 to 2",
    );
}

/// What a file with these keys below `general.sampling` recommends.
fn recommended(keys: &[(&str, Value)]) -> Result<SamplingDefaults, String> {
    let mut header = Header::new();
    for (key, value) in keys {
        header.set(&format!("general.sampling.{key}"), value.clone()).unwrap();
    }
    let file = Gguf::from_vec(Writer::new(Vec::new(), &header).unwrap().finish().unwrap()).unwrap();
    SamplingDefaults::from_metadata(file.metadata()).map_err(|error| error.to_string())
}

#[test]
fn a_file_recommends_parameters() {
    assert_eq!(recommended(&[]), Ok(SamplingDefaults::default()));
    let all = recommended(&[
        ("temp", 0.6f32.into()),
        ("top_k", 20i32.into()),
        ("top_p", 0.9f32.into()),
        ("min_p", 0u32.into()),
        ("penalty_repeat", 1.5f32.into()),
        ("penalty_last_n", 128i32.into()),
        ("mirostat", 2i32.into()),
    ]);
    let expected = SamplingDefaults {
        temperature: Some(0.6),
        top_k: Some(20),
        top_p: Some(0.9),
        min_p: Some(0.0),
        repeat_penalty: Some(1.5),
        repeat_last_n: Some(128),
    };
    assert_eq!(all, Ok(expected));
    let off = recommended(&[("top_k", (-1i32).into()), ("penalty_last_n", (-1i32).into())]).unwrap();
    assert_eq!((off.top_k, off.repeat_last_n), (Some(0), Some(0)));
}

#[test]
fn a_recommendation_outside_its_range_is_refused() {
    let cases: [(&str, Value); 8] = [
        ("temp", f32::NAN.into()),
        ("temp", (-0.5f32).into()),
        ("temp", f32::INFINITY.into()),
        ("top_p", 1.5f32.into()),
        ("min_p", (-1i32).into()),
        ("penalty_repeat", 0.0f32.into()),
        ("top_k", 20.5f32.into()),
        ("penalty_last_n", (1i64 << 40).into()),
    ];
    for (key, value) in cases {
        let error = recommended(&[(key, value)]).unwrap_err();
        assert!(error.contains(&format!("general.sampling.{key}")), "{error}");
    }
}
