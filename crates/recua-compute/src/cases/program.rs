//! Programs: what a launch uploads, runs and copies back, and in which order launches take effect.

use super::data::{output, upload_f32};
use super::{Measured, Report};
use crate::buffer::DType;
use crate::device::Device;
use crate::error::{Error, Result, argument};
use crate::plan::Record;
use crate::program::Input;

pub(super) fn check(device: &Device, report: &mut Report) {
    report.case("program", "inputs and outputs", || in_and_out(device));
    report.case("program", "launches in order", || in_order(device));
    report.case("program", "mistakes", || mistakes(device));
}

/// A launch reads its own inputs, and its outputs are those of its own run, whatever else is launched before they are taken.
fn in_and_out(device: &Device) -> Result<Vec<Measured>> {
    let (x, y) = (output(device, &[3, 4])?, output(device, &[3, 4])?);
    let mut plan = device.plan();
    plan.copy(&x, &y)?;
    let program = device.compile(&plan)?;
    drop(plan);
    let second_row = y.view(4, &[4])?;
    let values = |i: usize| -> Vec<f32> { (0..12).map(|j| (i * 100 + j) as f32).collect() };
    let mut submissions = Vec::new();
    for i in 0..5 {
        let values = values(i);
        let input = Input::new(&x, &values)?;
        submissions.push(program.launch(&[input], &[second_row.clone(), y.clone()])?);
    }
    let mut measured = Vec::new();
    for (i, submission) in submissions.iter().enumerate().rev() {
        let (mut row, mut all) = ([0.0f32; 4], [0.0f32; 12]);
        // Twice is fine, and in any order.
        submission.take(1, &mut all)?;
        submission.take(0, &mut row)?;
        submission.take(1, &mut all)?;
        submission.wait()?;
        measured.push(Measured::exact("a whole output", &all, &values(i)));
        measured.push(Measured::exact("a row", &row, &values(i)[4..8]));
    }
    Ok(measured)
}

/// Launches, writes and reads take effect in the order of the calls.
fn in_order(device: &Device) -> Result<Vec<Measured>> {
    let (a, b, c) = (upload_f32(device, &[1.0; 8], &[8])?, output(device, &[8])?, output(device, &[8])?);
    let compile = |from, to| {
        let mut plan = device.plan();
        plan.copy(from, to)?;
        device.compile(&plan)
    };
    let (first, second) = (compile(&a, &b)?, compile(&b, &c)?);
    // Part of an input: the rest stays.
    let launched = first.launch(&[Input::new(&a, &[2.0f32; 3])?], &[])?;
    second.launch(&[], &[])?;
    device.write(&b, &[7.0f32; 2])?;
    let mut found = device.read_vec::<f32>(&c)?;
    found.extend(device.read_vec::<f32>(&b)?);
    launched.wait()?;
    let expected = [2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 7.0, 7.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    Ok(vec![Measured::exact("the end", &found, &expected)])
}

/// Inputs and outputs that do not fit are errors that leave the program as it was.
fn mistakes(device: &Device) -> Result<Vec<Measured>> {
    let (x, y) = (output(device, &[4])?, output(device, &[4])?);
    let mut plan = device.plan();
    plan.copy(&x, &y)?;
    let program = device.compile(&plan)?;
    let refused = |what: &str, is_refused: bool| {
        if is_refused { Ok(()) } else { Err(argument("launch", format!("{what} is not refused"))) }
    };
    refused("an input that is too long", Input::new(&x, &[1.0f32; 5]).is_err())?;
    refused("an input of other elements", Input::new(&x, &[1u16; 4]).is_err())?;
    let other = crate::cpu::open(crate::cpu::Options { threads: Some(1), ..Default::default() })?;
    let foreign = other.alloc(DType::F32, &[4])?;
    let wrong = |result: Result<_>| matches!(result, Err(Error::WrongDevice { .. }));
    refused("a foreign input", wrong(program.launch(&[Input::new(&foreign, &[1.0f32; 4])?], &[])))?;
    refused("a foreign output", wrong(program.launch(&[], std::slice::from_ref(&foreign))))?;
    refused("a foreign plan", matches!(device.compile(&other.plan()), Err(Error::WrongDevice { .. })))?;
    let values = [1.0f32, 2.0, 3.0, 4.0];
    let submission = program.launch(&[Input::new(&x, &values)?], std::slice::from_ref(&y))?;
    let mut found = [0.0f32; 4];
    refused("an output that is not there", submission.take(1, &mut found).is_err())?;
    refused("an output of another size", submission.take(0, &mut found[..3]).is_err())?;
    submission.take(0, &mut found)?;
    Ok(vec![Measured::exact("the output", &found, &values)])
}
