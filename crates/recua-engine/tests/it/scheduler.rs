//! Scripts for the scheduler, and what it prints; there is no model.

use recua_engine::request::RequestId;
use recua_engine::scheduler::{Schedule, Scheduler};
use recua_engine::{CacheRoom, Sequences};

/// Runs a script and compares what its steps print. One command per line:
///
/// * `add N M`: a request with N known tokens that may grow to M; ids count from 0
/// * `cancel ID`
/// * `step`: prints `id@slot[start, end)` for every running request, with `+` if it gives a token, then `{its pages}`; then the number of
///   waiting requests, of free pages, and of free pages promised to the running ones
///
/// A sequence that has all its tokens is removed, as the engine does.
fn check(scheduler: Scheduler, script: &str, expected: &str) {
    let mut scheduler = scheduler;
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
    let schedule = scheduler.schedule();
    let mut words = Vec::new();
    for scheduled in &schedule.sequences {
        let end = scheduled.start + scheduled.n_new;
        let mark = if scheduled.completes { "+" } else { "" };
        let pages = scheduler.sequences().slot_pages(scheduled.slot).unwrap();
        let pages: Vec<String> = pages.iter().map(u32::to_string).collect();
        let (id, slot, start) = (scheduled.id, scheduled.slot, scheduled.start);
        words.push(format!("{id}@{slot}[{start}, {end}){mark} {{{}}}", pages.join(",")));
    }
    words.push(format!(
        "waiting {}, free {}, promised {}",
        scheduler.n_waiting(),
        scheduler.sequences().free_pages(),
        scheduler.n_pages_promised()
    ));
    check_changes(scheduler, &schedule);
    finish(scheduler, &schedule);
    words.join(" ")
}

/// The device is sent every page of a sequence exactly once.
fn check_changes(scheduler: &Scheduler, schedule: &Schedule) {
    assert_eq!(schedule.changes.copies, [], "nothing is shared");
    let mut table = Vec::new();
    for scheduled in &schedule.sequences {
        let had = scheduled.start.div_ceil(scheduler.sequences().page_tokens());
        let pages = scheduler.sequences().slot_pages(scheduled.slot).unwrap();
        let entry = |(index, page): (usize, &u32)| (scheduled.slot as u32, index as u32, *page);
        table.extend(pages.iter().enumerate().skip(had).map(entry));
    }
    assert_eq!(schedule.changes.table, table);
}

/// Every completed sequence gets a token, and is removed after its last.
fn finish(scheduler: &mut Scheduler, schedule: &Schedule) {
    for scheduled in schedule.sequences.iter().filter(|scheduled| scheduled.completes) {
        if !scheduler.append(scheduled.id) {
            scheduler.remove(scheduled.id);
        }
    }
}

fn scheduler(n_slots: usize, n_pages: usize, step_rows_max: usize) -> Scheduler {
    let room = CacheRoom { n_slots, n_pages, page_tokens: 4, max_seq_len: 4 * n_pages };
    Scheduler::new(Sequences::new(room).unwrap(), step_rows_max)
}

#[test]
fn prompts_share_a_step_then_each_has_a_row() {
    check(
        scheduler(4, 16, 16),
        "add 5 8
         add 3 8
         step
         step
         cancel 0
         step",
        "0@0[0, 5)+ {0,1} 1@1[0, 3)+ {2} waiting 0, free 13, promised 1
         0@0[5, 6)+ {0,1} 1@1[3, 4)+ {2} waiting 0, free 13, promised 1
         1@1[4, 5)+ {2,0} waiting 0, free 14, promised 0",
    );
}

#[test]
fn a_long_prompt_does_not_hold_up_its_neighbours() {
    check(
        scheduler(4, 16, 8),
        "add 2 6
         step
         add 20 24
         add 3 8
         step
         step
         step
         step",
        "0@0[0, 2)+ {0} waiting 0, free 15, promised 1
         0@0[2, 3)+ {0} 1@1[0, 7) {1,2} waiting 0, free 13, promised 7
         0@0[3, 4)+ {0} 1@1[7, 14) {1,2,3,4} waiting 0, free 11, promised 5
         0@0[4, 5)+ {0,5} 1@1[14, 20)+ {1,2,3,4,6} 2@2[0, 1) {7} waiting 0, free 8, promised 2
         1@1[20, 21)+ {1,2,3,4,6,0} 2@2[1, 3)+ {7} waiting 0, free 9, promised 1",
    );
}

#[test]
fn admission_waits_for_slots_and_keeps_its_order() {
    check(
        scheduler(2, 16, 16),
        "add 2 3
         add 2 4
         add 2 9
         add 2 4
         step
         step
         cancel 2
         step",
        "0@0[0, 2)+ {0} 1@1[0, 2)+ {1} waiting 2, free 14, promised 0
         1@1[2, 3)+ {1} 2@0[0, 2)+ {0} waiting 1, free 14, promised 2
         3@0[0, 2)+ {0} waiting 0, free 15, promised 0",
    );
}

#[test]
fn admission_waits_for_the_pages_of_the_worst_case() {
    // Request 1 may need all four pages: it waits, and so does 2, which would fit but came later.
    check(
        scheduler(3, 4, 16),
        "add 2 4
         add 2 16
         add 1 2
         step
         step
         step
         cancel 1
         step",
        "0@0[0, 2)+ {0} waiting 2, free 3, promised 0
         0@0[2, 3)+ {0} waiting 2, free 3, promised 0
         1@0[0, 2)+ {0} waiting 1, free 3, promised 3
         2@0[0, 1)+ {0} waiting 0, free 3, promised 0",
    );
}

#[test]
fn a_budget_below_the_number_of_sequences_goes_round() {
    check(
        scheduler(3, 16, 2),
        "add 1 9
         add 1 9
         add 1 9
         step
         step
         step
         step",
        "0@0[0, 1)+ {0} 1@1[0, 1)+ {1} waiting 0, free 14, promised 7
         2@2[0, 1)+ {2} 0@0[1, 2)+ {0} waiting 0, free 13, promised 6
         1@1[1, 2)+ {1} 2@2[1, 2)+ {2} waiting 0, free 13, promised 6
         0@0[2, 3)+ {0} 1@1[2, 3)+ {1} waiting 0, free 13, promised 6",
    );
}

#[test]
fn a_budget_of_one_row_gets_everything_done() {
    check(
        scheduler(2, 16, 1),
        "add 2 4
         add 2 3
         step
         step
         step
         step
         step
         step",
        "0@0[0, 1) {0} waiting 0, free 15, promised 1
         0@0[1, 2)+ {0} waiting 0, free 15, promised 1
         0@0[2, 3)+ {0} waiting 0, free 15, promised 1
         1@1[0, 1) {0} waiting 0, free 15, promised 0
         1@1[1, 2)+ {0} waiting 0, free 15, promised 0
         waiting 0, free 16, promised 0",
    );
}

#[test]
fn cancelling_in_the_queue_or_twice_is_harmless() {
    check(
        scheduler(1, 16, 16),
        "add 2 4
         add 2 4
         cancel 1
         cancel 1
         cancel 7
         step
         cancel 0
         step",
        "0@0[0, 2)+ {0} waiting 0, free 15, promised 0
         waiting 0, free 16, promised 0",
    );
}

/// Like the engine, when it prepares a step while the one before is in flight.
#[test]
fn a_sequence_waits_for_its_token_and_the_others_go_on() {
    let mut scheduler = scheduler(3, 16, 8);
    scheduler.add(RequestId(0), 3, 6);
    scheduler.add(RequestId(1), 12, 16);
    let rows = |schedule: &Schedule| -> Vec<(u64, usize, usize, bool)> {
        schedule.sequences.iter().map(|s| (s.id.0, s.start, s.n_new, s.completes)).collect()
    };
    let first = scheduler.schedule();
    assert_eq!(rows(&first), [(0, 0, 3, true), (1, 0, 5, false)]);
    let second = scheduler.schedule();
    assert_eq!(rows(&second), [(1, 5, 7, true)], "sequence 0 has no row before its token");
    finish(&mut scheduler, &first);
    let third = scheduler.schedule();
    assert_eq!(rows(&third), [(0, 3, 1, true)]);
    finish(&mut scheduler, &second);
    // A sequence that is removed while its rows are in flight leaves its pages to the next.
    scheduler.add(RequestId(2), 9, 10);
    assert!(scheduler.remove(RequestId(0)));
    assert!(!scheduler.append(RequestId(0)));
    scheduler.check();
    let fourth = scheduler.schedule();
    assert_eq!(rows(&fourth), [(1, 12, 1, true), (2, 0, 7, false)]);
    assert_eq!(fourth.sequences[1].slot, 0);
    assert_eq!(scheduler.sequences().slot_pages(1).unwrap().last(), Some(&0));
    scheduler.check();
}

/// A token is appended before the host has seen it, so the next row may take a page. If the token ends the answer, another sequence can
/// have that page in the next step.
#[test]
fn a_row_too_many_gives_its_page_back() {
    check(
        scheduler(2, 4, 16),
        "add 3 8
         add 1 8
         step
         step
         step
         cancel 0
         add 5 8
         step
         step",
        "1@1[0, 1)+ {0} 0@0[0, 3)+ {1} waiting 0, free 2, promised 2
         1@1[1, 2)+ {0} 0@0[3, 4)+ {1} waiting 0, free 2, promised 2
         1@1[2, 3)+ {0} 0@0[4, 5)+ {1,2} waiting 0, free 1, promised 1
         1@1[3, 4)+ {0} 2@0[0, 5)+ {1,2} waiting 0, free 1, promised 1
         1@1[4, 5)+ {0,3} 2@0[5, 6)+ {1,2} waiting 0, free 0, promised 0",
    );
}

#[test]
fn rows_of_a_cancelled_sequence_are_forgotten() {
    let mut scheduler = scheduler(2, 16, 16);
    scheduler.add(RequestId(0), 3, 4);
    scheduler.schedule();
    assert!(scheduler.remove(RequestId(0)));
    assert!(!scheduler.append(RequestId(0)));
    scheduler.check();
    assert_eq!(scheduler.into_sequences().free_pages(), 16);
}

/// Whatever is added and cancelled, no step exceeds the budget, and every sequence finishes.
#[test]
fn random_walks_end() {
    let mut state = 1u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for _ in 0..50 {
        let (n_pages, step_rows_max) = (5 + random(10) as usize, 1 + random(12) as usize);
        let mut scheduler = scheduler(1 + random(5) as usize, n_pages, step_rows_max);
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
                _ => n_rows += run_step(&mut scheduler, step_rows_max),
            }
            scheduler.check();
        }
        while scheduler.n_running() + scheduler.n_waiting() > 0 {
            let n = run_step(&mut scheduler, step_rows_max);
            assert!(n > 0, "stuck: {scheduler:?}");
            n_rows += n;
            scheduler.check();
        }
        assert!(n_rows > 0);
        assert_eq!(scheduler.sequences().free_pages(), n_pages);
    }
}

fn run_step(scheduler: &mut Scheduler, step_rows_max: usize) -> usize {
    let schedule = scheduler.schedule();
    let n_rows = schedule.sequences.iter().map(|scheduled| scheduled.n_new).sum();
    assert!(n_rows <= step_rows_max);
    check_changes(scheduler, &schedule);
    finish(scheduler, &schedule);
    n_rows
}
