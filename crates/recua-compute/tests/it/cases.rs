//! The shared op cases on the CPU device, for every instruction set that this processor has.

use recua_compute::cpu::{self, Isa, Options};
use recua_compute::{Device, cases};

fn devices() -> impl Iterator<Item = (Isa, Device)> {
    let open = |isa| cpu::open(Options { threads: Some(2), isa: Some(isa) }).expect("it is available");
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(move |isa| (isa, open(isa)))
}

#[test]
fn every_op_is_right() {
    for (isa, device) in devices() {
        let report = cases::check_all(&device);
        println!("{isa}: {report}");
        report.assert();
        assert!(report.unsupported.is_empty(), "the CPU device has every type");
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch() {
    for (isa, device) in devices() {
        let report = cases::check_same_bits(&device);
        println!("{isa}: {report}");
        report.assert();
    }
}

#[test]
fn instruction_sets_and_thread_counts_agree_to_the_last_bit() {
    let mut expected = None;
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for threads in [1, 3] {
            let device = cpu::open(Options { threads: Some(threads), isa: Some(isa) }).unwrap();
            let found = cases::bits(&device).unwrap();
            let expected = expected.get_or_insert_with(|| found.clone());
            for ((name, found), (_, expected)) in found.iter().zip(expected.iter()) {
                assert!(found == expected, "{name} on {isa} with {threads} threads");
            }
        }
    }
}

#[test]
fn random_plans_do_what_their_operands_say() {
    let device = cpu::open(Options { threads: Some(2), isa: None }).unwrap();
    let tally = cases::random_plans::check(&device, 1, 1000).unwrap_or_else(|e| panic!("{e}"));
    println!("{tally:?}");
    // The draws are not so wild that most plans are refused or fail.
    assert!(tally.ran > 800 && tally.failed > 0 && tally.recorded > 3000 && tally.refused > 500, "{tally:?}");
}
