//! The functions that every template may call.

use super::eval::{Args, Eval, namespace};
use super::value::{Function, Value};
use super::{Error, clock};

pub(super) fn call<'t>(function: Function, args: &Args<'t>, eval: &mut Eval<'t>) -> Result<Value<'t>, Error> {
    let budget = &mut eval.budget;
    match function {
        Function::RaiseException => {
            let message = args.require(0, "message")?.to_text(budget)?;
            Err(Error::Raised(message.chars().take(1000).collect()))
        }
        Function::StrftimeNow => {
            let text = clock::format(eval.now, args.require(0, "format")?.as_str()?, budget)?;
            Value::str(&text, budget)
        }
        Function::Namespace | Function::Dict => {
            budget.values(args.named.len())?;
            let mut variables = Vec::new();
            if let Some(Value::Map(map)) = args.positional.first() {
                budget.values(map.entries.len())?;
                variables.extend(map.entries.iter().cloned());
            }
            for (name, value) in &args.named {
                value.check_storable()?;
                budget.bytes(name.len())?;
                variables.push(((*name).into(), value.clone()));
            }
            let map = Value::map(variables, budget)?;
            match (function, &map) {
                (Function::Namespace, Value::Map(map)) => {
                    budget.values(map.entries.len())?;
                    Ok(namespace(map.entries.clone()))
                }
                _ => Ok(map),
            }
        }
        Function::Range => {
            let first = args.require(0, "stop")?.as_int()?;
            let (start, stop) = match args.positional.get(1) {
                Some(stop) => (first, stop.as_int()?),
                None => (0, first),
            };
            let step = args.positional.get(2).map_or(Ok(1), Value::as_int)?;
            if step == 0 {
                return Err(Error::new("the step of range is 0"));
            }
            let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
            let n = u64::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            budget.values(n)?;
            // The last one lies before `stop`, so none of them overflows.
            Value::list((0..n as i64).map(|i| Value::Int(start.wrapping_add(i.wrapping_mul(step)))).collect())
        }
    }
}
