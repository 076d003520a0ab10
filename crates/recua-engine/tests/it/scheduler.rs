//! Scripts for the scheduler, and what it prints: no model takes part.

use recua_engine::request::RequestId;
use recua_engine::scheduler::{Scheduler, SchedulerConfig};

/// Runs a script and compares what its steps print. One command a line:
///
/// * `add N M`: a request with N known tokens that may grow to M; ids count from 0
/// * `cancel ID`
/// * `step`: prints `id@slot[start, end)` of each share, with `+` if it gives a token, then who waits and which pages are
///   free, if any do or not all are
///
/// A sequence that has all its tokens is removed, as the engine does.
fn check(config: SchedulerConfig, script: &str, expected: &str) {
    let mut scheduler = Scheduler::new(config);
    let mut n_added = 0;
    let mut printed = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |idx: usize| words[idx].parse::<usize>().unwrap();
        match words[0] {
            "add" => {
                scheduler.add(RequestId(n_added), number(1), number(2));
                n_added += 1;
            }
            "cancel" => drop(scheduler.remove(RequestId(number(1) as u64))),
            "step" => printed.push(step(&mut scheduler)),
            other => panic!("no command {other:?}"),
        }
        scheduler.check();
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(printed, expected, "\n{}", printed.join("\n"));
}

fn step(scheduler: &mut Scheduler) -> String {
    let shares = scheduler.schedule();
    let (n_waiting, n_pages_free) = (scheduler.n_waiting(), scheduler.n_pages_free());
    scheduler.commit(&shares);
    let mut words = Vec::new();
    for share in &shares {
        let end = share.start + share.n_new;
        let mark = if share.completes { "+" } else { "" };
        words.push(format!("{}@{}[{}, {end}){mark}", share.id, share.slot, share.start));
        if share.completes && !scheduler.append(share.id) {
            scheduler.remove(share.id);
        }
    }
    words.push(format!("waiting {n_waiting}, pages {n_pages_free}"));
    words.join(" ")
}

fn config(n_slots: usize, n_pages: usize, step_rows_max: usize) -> SchedulerConfig {
    SchedulerConfig { n_slots, n_pages, page_tokens: 4, step_rows_max }
}

#[test]
fn prompts_share_a_step_then_each_has_a_row() {
    check(
        config(4, 16, 16),
        "add 5 8
         add 3 8
         step
         step
         cancel 0
         step",
        "0@0[0, 5)+ 1@1[0, 3)+ waiting 0, pages 12
         0@0[5, 6)+ 1@1[3, 4)+ waiting 0, pages 12
         1@1[4, 5)+ waiting 0, pages 14",
    );
}

#[test]
fn a_long_prompt_does_not_hold_up_its_neighbours() {
    check(
        config(4, 16, 8),
        "add 2 6
         step
         add 20 24
         add 3 8
         step
         step
         step
         step",
        "0@0[0, 2)+ waiting 0, pages 14
         0@0[2, 3)+ 1@1[0, 7) waiting 0, pages 6
         0@0[3, 4)+ 1@1[7, 14) waiting 0, pages 6
         0@0[4, 5)+ 1@1[14, 20)+ 2@2[0, 1) waiting 0, pages 6
         1@1[20, 21)+ 2@2[1, 3)+ waiting 0, pages 8",
    );
}

#[test]
fn admission_waits_for_slots_and_keeps_its_order() {
    check(
        config(2, 16, 16),
        "add 2 3
         add 2 4
         add 2 9
         add 2 4
         step
         step
         cancel 2
         step",
        "0@0[0, 2)+ 1@1[0, 2)+ waiting 2, pages 14
         1@1[2, 3)+ 2@0[0, 2)+ waiting 1, pages 12
         3@0[0, 2)+ waiting 0, pages 15",
    );
}

#[test]
fn admission_waits_for_the_pages_of_the_worst_case() {
    // Request 1 may need all four pages: it waits, and so does 2, which would fit but came later.
    check(
        config(3, 4, 16),
        "add 2 4
         add 2 16
         add 1 2
         step
         step
         step
         cancel 1
         step",
        "0@0[0, 2)+ waiting 2, pages 3
         0@0[2, 3)+ waiting 2, pages 3
         1@0[0, 2)+ waiting 1, pages 0
         2@0[0, 1)+ waiting 0, pages 3",
    );
}

#[test]
fn a_budget_below_the_number_of_sequences_goes_round() {
    check(
        config(3, 16, 2),
        "add 1 9
         add 1 9
         add 1 9
         step
         step
         step
         step",
        "0@0[0, 1)+ 1@1[0, 1)+ waiting 0, pages 7
         2@2[0, 1)+ 0@0[1, 2)+ waiting 0, pages 7
         1@1[1, 2)+ 2@2[1, 2)+ waiting 0, pages 7
         0@0[2, 3)+ 1@1[2, 3)+ waiting 0, pages 7",
    );
}

#[test]
fn a_budget_of_one_row_gets_everything_done() {
    check(
        config(2, 16, 1),
        "add 2 4
         add 2 3
         step
         step
         step
         step
         step
         step",
        "0@0[0, 1) waiting 0, pages 14
         0@0[1, 2)+ waiting 0, pages 14
         0@0[2, 3)+ waiting 0, pages 14
         1@1[0, 1) waiting 0, pages 15
         1@1[1, 2)+ waiting 0, pages 15
         waiting 0, pages 16",
    );
}

#[test]
fn cancelling_in_the_queue_or_twice_is_harmless() {
    check(
        config(1, 16, 16),
        "add 2 4
         add 2 4
         cancel 1
         cancel 1
         cancel 7
         step
         cancel 0
         step",
        "0@0[0, 2)+ waiting 0, pages 15
         waiting 0, pages 16",
    );
}

#[test]
fn rows_of_a_cancelled_sequence_are_forgotten() {
    let mut scheduler = Scheduler::new(config(2, 16, 16));
    scheduler.add(RequestId(0), 3, 4);
    let shares = scheduler.schedule();
    assert_eq!(scheduler.remove(RequestId(0)), Some(0));
    scheduler.commit(&shares);
    assert!(!scheduler.append(RequestId(0)));
    scheduler.check();
}

/// Whatever is added and cancelled, nobody gets more rows than the budget, and everybody gets done.
#[test]
fn random_walks_end() {
    let mut state = 1u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for _ in 0..50 {
        let config = config(1 + random(5) as usize, 5 + random(10) as usize, 1 + random(12) as usize);
        let mut scheduler = Scheduler::new(config);
        let mut n_added = 0;
        let mut n_rows = 0;
        for _ in 0..200 {
            match random(4) {
                0 => {
                    let n_present = 1 + random(12) as usize;
                    scheduler.add(RequestId(n_added), n_present, n_present + 1 + random(8) as usize);
                    n_added += 1;
                }
                1 => drop(scheduler.remove(RequestId(random(n_added + 1)))),
                _ => n_rows += run_step(&mut scheduler, config.step_rows_max),
            }
            scheduler.check();
        }
        while scheduler.n_running() + scheduler.n_waiting() > 0 {
            let n = run_step(&mut scheduler, config.step_rows_max);
            assert!(n > 0, "stuck: {scheduler:?}");
            n_rows += n;
            scheduler.check();
        }
        assert!(n_rows > 0);
        assert_eq!(scheduler.n_pages_free(), config.n_pages);
    }
}

fn run_step(scheduler: &mut Scheduler, step_rows_max: usize) -> usize {
    let shares = scheduler.schedule();
    let n_rows = shares.iter().map(|share| share.n_new).sum();
    assert!(n_rows <= step_rows_max);
    scheduler.commit(&shares);
    for share in shares.iter().filter(|share| share.completes) {
        if !scheduler.append(share.id) {
            scheduler.remove(share.id);
        }
    }
    n_rows
}
