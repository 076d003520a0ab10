//! Templates that want too much. The budgets here are small, so that templates which are harmless elsewhere exceed
//! them: each of them renders within what [`Template::render`] allows.

use std::time::{Duration, Instant};

use recua_template::{Error, Input, Limits, Template};

use crate::{LLAMA_3_1, NOW, QWEN_3, render, render_within};

/// More of one of the two than any template here can use.
const PLENTY: u64 = 1 << 40;

fn doubling(step: &str) -> String {
    format!("{{% set x = 'xxxxxxxx' %}}{}{{{{ x | length }}}}", step.repeat(12))
}

/// Templates that hold some tens of kilobytes at a time.
fn large() -> Vec<(&'static str, String)> {
    let text = "{% set x = 'x' * 30000 %}";
    vec![
        ("concat", doubling("{% set x = x ~ x %}")),
        ("add", doubling("{% set x = x + x %}")),
        ("set block", doubling("{% set x %}{{ x }}{{ x }}{% endset %}")),
        ("join", doubling("{% set x = [x, x] | join %}")),
        ("join method", doubling("{% set x = '-'.join([x, x]) %}")),
        ("replace", doubling("{% set x = x | replace('x', 'xx') %}")),
        ("replace method", doubling("{% set x = x.replace('x', 'xx') %}")),
        ("format", doubling("{% set x = '%s%s' | format(x, x) %}")),
        ("percent", doubling("{% set x = '%s%s' % (x, x) %}")),
        ("braces", doubling("{% set x = '{0}{0}'.format(x) %}")),
        ("indent", doubling("{% set x = (x ~ '\\n') | indent(1000, true, true) %}")),
        ("indent width", "{{ 'x\ny' | indent(100000) | length }}".into()),
        ("escape", "{% set x = '<' * 8000 %}{{ x | e | length }}".into()),
        ("filter block", doubling("{% set x %}{% filter upper %}{{ x }}{{ x }}{% endfilter %}{% endset %}")),
        ("macro", format!("{{% macro d(s) %}}{{{{ s }}}}{{{{ s }}}}{{% endmacro %}}{}", doubling("{% set x = d(x) %}"))),
        ("call block", format!("{{% macro d() %}}{{{{ caller() }}}}{{{{ caller() }}}}{{% endmacro %}}{}", doubling("{% set x %}{% call d() %}{{ x }}{% endcall %}{% endset %}"))),
        ("namespace", format!("{{% set ns = namespace(x='xxxxxxxx') %}}{}{{{{ ns.x | length }}}}", "{% set ns.x = ns.x ~ ns.x %}".repeat(12))),
        ("lists", format!("{{% set x = [1] %}}{}{{{{ x | length }}}}", "{% set x = x + x %}".repeat(10))),
        ("characters", format!("{text}{{{{ x | list | length }}}}")),
        ("a loop over characters", format!("{text}{{% for c in x %}}{{% endfor %}}")),
        ("lists within lists, printed", format!("{{% set x = ['xxxxxxxx'] %}}{}{{{{ x | string | length }}}}", "{% set x = [x, x] %}".repeat(11))),
        ("lists within lists, as JSON", format!("{{% set x = ['xxxxxxxx'] %}}{}{{{{ x | tojson | length }}}}", "{% set x = [x, x] %}".repeat(11))),
        ("json indent", "{{ [[[[1]]]] | tojson(indent=10000) | length }}".into()),
        ("separators", "{% set x = 'x' * 1000 %}{{ range(50) | list | tojson(separators=(x, x)) | length }}".into()),
        ("string times", "{{ ('x' * 100000) | length }}".into()),
        ("list times", "{{ ([0] * 10000) | length }}".into()),
        ("range", "{{ range(10000) | length }}".into()),
        ("slices", format!("{text}{{{{ [x[1:], x[2:], x[3:]] | length }}}}")),
        ("splits", "{{ ('x ' * 3000).split(' ') | length }}".into()),
        ("lines", "{{ ('x\\n' * 3000).splitlines() | length }}".into()),
        ("case", format!("{text}{{{{ x | upper | length }}}}")),
        ("center", "{{ 'x' | center(100000) | length }}".into()),
        ("zfill", "{{ '1'.zfill(100000) | length }}".into()),
        ("percent width", "{{ ('%100000d' % 1) | length }}".into()),
        ("a specification", "{{ '{:>100000}'.format(1) | length }}".into()),
        ("tabs", "{{ '\\t'.expandtabs(100000) | length }}".into()),
        ("batch", "{{ [1] | batch(10000, 0) | first | length }}".into()),
        ("slices of lists", "{{ [1] | slice(10000) | first | length }}".into()),
        ("sum of lists", "{% set x = range(100) | list %}{{ ([x] * 20) | sum(start=[]) | length }}".into()),
        ("group", "{{ ([{'a': 1}] * 1000) | groupby('a') | length }}".into()),
        ("sort", "{{ range(1000) | sort | length }}".into()),
        ("map", "{{ range(1000) | map('string') | list | length }}".into()),
        ("pairs", "{% set x = dict([['a', 1]]) %}{{ (range(300) | map('list') | list | length) if false else ([x] * 2000) | length }}".into()),
        ("namespaces", "{% for i in range(500) %}{% set ns = namespace(a=i) %}{% endfor %}".into()),
        ("many variables", (0..500).map(|i| format!("{{% set v{i} = 1 %}}")).collect()),
        ("arguments", "{% macro f() %}{{ varargs | length }}{% endmacro %}{{ f(*range(1000)) }}".into()),
        ("dates", format!("{{{{ strftime_now('{}') | length }}}}", "%B".repeat(3000))),
        ("output", "{% for i in range(1000) %}xxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}".into()),
        ("captured output", "{% set y %}{% for i in range(1000) %}xxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endset %}".into()),
        ("frames of a recursion", "{% macro f(n) %}{% set a = 1 %}{% set b = 1 %}{% set c = 1 %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(30) }}".into()),
        ("lists of a recursion", format!("{{% macro f(n) %}}{{{{ [{}f(n - 1) if n else 0] | length }}}}{{% endmacro %}}{{{{ f(20) }}}}", "1,".repeat(50))),
        ("joiner", "{% set j = joiner('x' * 30000) %}{{ j() }}{{ j() | length }}".into()),
    ]
}

#[test]
fn memory_that_is_live_is_bounded() {
    for (name, source) in large() {
        let small = Limits { steps: PLENTY, bytes: 16_000 };
        assert_eq!(render_within(small, &source), Err(Error::Limit("memory")), "{name}");
        assert!(render(&source).is_ok(), "{name}: {:?}", render(&source));
    }
}

/// What is no longer needed makes room.
#[test]
fn memory_is_given_back() {
    let small = Limits { steps: PLENTY, bytes: 200_000 };
    for step in [
        "{% set x = 'x' * 30000 %}",
        "{% set x %}{{ 'x' * 30000 }}{% endset %}",
        "{% set x = range(1000) | map('string') | list | tojson %}",
        "{% for c in 'x' * 1000 %}{% endfor %}",
        "{% set x = f('x' * 30000) %}",
        "{% set ns.x = ('x' * 10000) ~ i %}",
        "{% if ('x' * 30000) | upper == 1 %}{% endif %}",
    ] {
        let source = format!(
            "{{% macro f(x) %}}{{{{ x }}}}{{% endmacro %}}{{% set ns = namespace() %}}{{% for i in range(200) %}}{step}{{% endfor %}}"
        );
        assert_eq!(render_within(small, &source).as_deref(), Ok(""), "{step}");
    }
}

/// Templates that take more than a thousand steps.
fn long() -> Vec<(&'static str, String)> {
    let text = "{% set x = 'x' * 30000 %}";
    vec![
        ("nested loops", "{% for a in range(50) %}{% for b in range(50) %}{% endfor %}{% endfor %}".into()),
        ("a long loop", "{% for a in range(2000) %}x{% endfor %}".into()),
        ("searches", format!("{text}{{% for a in range(50) %}}{{% if 'xy' in x %}}{{% endif %}}{{% endfor %}}")),
        ("comparisons", format!("{text}{{% set y = x ~ '' %}}{{% for a in range(50) %}}{{% if x == y %}}{{% endif %}}{{% endfor %}}")),
        ("strip", format!("{text}{{{{ x.strip('ayyyyyx') | length }}}}")),
        ("slices", format!("{text}{{% for a in range(50) %}}{{% set y = x[1:] %}}{{% endfor %}}")),
        ("equal lists", format!("{{% set x = [1] %}}{{% set y = [1] %}}{}{{{{ x == y }}}}", "{% set x = [x, x] %}{% set y = [y, y] %}".repeat(11))),
        ("a recursive loop", "{% for x in range(40) recursive %}{{ loop(range(40)) if loop.depth == 1 }}{% endfor %}".into()),
        ("unique", "{{ range(300) | unique | list | length }}".into()),
        ("sort", "{{ range(300) | sort | length }}".into()),
        ("caller", "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}".to_owned() + &"{% call f() %}".repeat(10) + "x" + &"{% endcall %}".repeat(10)),
        ("a large mapping", "{{ dict(range(300) | batch(1) | map('list') | map('join', '-') | map('list') | batch(1) | map('first') | map('first') | batch(2) | list) | length }}".into()),
        ("variables looked up", (0..200).map(|i| format!("{{% set v{i} = v0 %}}")).collect()),
    ]
}

#[test]
fn work_is_bounded() {
    for (name, source) in long() {
        let small = Limits { steps: 1000, bytes: PLENTY as usize };
        assert_eq!(render_within(small, &source), Err(Error::Limit("steps")), "{name}");
        assert!(render(&source).is_ok(), "{name}: {:?}", render(&source));
    }
}

/// Templates that are nested deeper than is accepted, in the source or while they run.
#[test]
fn nesting_is_bounded() {
    let around = |open: &str, inner: &str, close: &str| open.repeat(300) + inner + &close.repeat(300);
    let mut templates: Vec<String> = [
        ("(", ")"),
        ("[", "]"),
        ("f(", ")"),
        ("a[", "]"),
        ("{1:", "}"),
        ("- ", ""),
        ("not ", ""),
        ("1 if 0 else ", ""),
        ("", "+1"),
        ("", " or 1"),
        ("", ".a"),
        ("", "|e"),
        ("", "()"),
        ("", " is x"),
    ]
    .into_iter()
    .map(|(open, close)| format!("{{{{ {} }}}}", around(open, "1", close)))
    .collect();
    templates.push(format!("{{% set {} = 1 %}}", around("(", "a", ")")));
    templates.push(format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(300)));
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% for a in [1] %}", "{% endfor %}"),
        ("{% set x %}", "{% endset %}"),
        ("{% macro f() %}", "{% endmacro %}"),
    ] {
        templates.push(around(open, "x", close));
    }
    templates.push("{% macro f(n) %}{{ f(n - 1) if n }}{% endmacro %}{{ f(300) }}".into());
    templates.push(
        "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x] %}{% endfor %}".into(),
    );
    templates.push(
        "{% set ns = namespace(x={}) %}{% for i in range(100) %}{% set ns.x = {'a': ns.x} %}{% endfor %}"
            .into(),
    );
    templates.push(format!("{{{{ [messages] | map({}'upper') | list }}}}", "'map',".repeat(300)));
    for template in templates {
        let error = render(&template).unwrap_err();
        let is_bound = matches!(&error, Error::Limit("nesting")) || error.to_string().contains("250");
        assert!(is_bound, "{template}: {error}");
    }
}

/// Long sources that are wrong, or large and right: each is refused or rendered quickly.
#[test]
fn long_sources_take_little_time() {
    for (name, source) in [
        ("a source that is too long", "x".repeat((256 << 10) + 1)),
        ("tokens", format!("{{{{ [{}] | length }}}}", "1,".repeat(100_000))),
        ("tags", "{{a}}".repeat(50_000)),
        ("arguments", format!("{{{{ dict({}) }}}}", "1,".repeat(100_000))),
        ("strings side by side", format!("{{{{ {} }}}}", "'a'".repeat(80_000))),
        ("raw without end", "{% raw %}".to_owned() + &"{%-".repeat(80_000)),
        ("almost raw", "{%".to_owned() + &" ".repeat(200_000) + "ra"),
        ("comments without end", "{#".repeat(100_000)),
        ("braces", "{{".repeat(50_000)),
        ("a string without end", format!("{{{{ '{}", "\\x".repeat(50_000))),
        ("digits", format!("{{{{ {} }}}}", "9".repeat(100_000))),
        ("lines", "\n".repeat(100_000) + "{{ x.y }}"),
    ] {
        let start = Instant::now();
        let _ = render(&source);
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    }
}

/// A rendering takes what its limit says, and not much more. Measured in a process of its own.
#[test]
fn the_process_stays_small() {
    const VARIABLE: &str = "RECUA_TEMPLATE_PEAK";
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: the peak is read from /proc");
        return;
    }
    if std::env::var_os(VARIABLE).is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hostile::the_process_stays_small", "--nocapture"])
            .env(VARIABLE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("peak "), "{text}");
        return;
    }
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak();
    let small = Limits { steps: PLENTY, bytes: 8 << 20 };
    // Each would hold 32 MiB.
    for step in [
        "{% set x = x ~ x %}",
        "{% set x = [x, x] | join %}",
        "{% set x %}{{ x }}{{ x }}{% endset %}",
        "{% set x = x.replace('x', 'xx') %}",
    ] {
        let source = format!("{{% set x = 'xxxxxxxx' %}}{}{{{{ x | length }}}}", step.repeat(22));
        assert_eq!(render_within(small, &source), Err(Error::Limit("memory")), "{step}");
    }
    for source in [
        "{{ range(100000) | map('string') | list | tojson | list | length }}",
        "{% set x = range(1000) | list %}{{ ([x] * 1000) | sum(start=[]) | length }}",
    ] {
        let _ = render_within(small, source);
    }
    let peak = (peak() - before) >> 10;
    eprintln!("peak {peak} MiB");
    assert!(peak < 28, "{peak} MiB");
}

/// The deepest templates that are allowed need little stack, whether they are parsed, run or dropped.
#[test]
fn a_small_stack_is_enough() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    let mut templates: Vec<String> =
        [("(", ")"), ("[", "]"), ("f(", ")"), ("a[", "]"), ("{1:", "}"), ("not ", ""), ("- ", "")]
            .into_iter()
            .map(|(open, close)| format!("{{{{ {} }}}}", nested(open, "1", close, 120)))
            .collect();
    templates.extend(
        ["+1", "~1", " or 0", "|e", ".a", " is none"].map(|tail| format!("{{{{ a{} }}}}", tail.repeat(240))),
    );
    templates.push(nested("{% if 1 %}", "x", "{% endif %}", 245));
    templates.push(nested("{% for a in [1] %}", "x", "{% endfor %}", 245));
    templates.push(nested("{% set a %}", "x", "{% endset %}", 245));
    templates.push(nested("{% macro f() %}", "x", "{% endmacro %}", 245));
    templates.push("{% macro f(n) %}{{ f(n - 1) if n }}{% endmacro %}{{ f(250) }}".into());
    templates.push("{% macro f(n) %}{% if n %}{% for a in [1] %}{% set x %}{{ [{1: f(n - 1)}] }}{% endset %}{{ x }}{% endfor %}{% endif %}{% endmacro %}{{ f(250) }}".into());
    templates.push("{% for x in [1] recursive %}{{ loop([1]) if loop.depth < 250 }}{% endfor %}".into());
    templates.push(format!("{{{{ [messages] | map({}'upper') | list }}}}", "'map',".repeat(240)));
    templates.push("{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}{{ ns.x | tojson }}{{ ns.x == ns.x }}{{ ns.x < ns.x }}".into());
    templates.push("{% set ns = namespace() %}{% for i in range(9000) %}{% set ns.next = namespace(next=ns.next) %}{% endfor %}".into());
    let run = move || {
        for template in &templates {
            let _ = render(template);
        }
    };
    // The default of the standard library. With optimisation, a fifth of it is used.
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// Long chats through templates that look at every pair of messages, or at every character, as some in use do.
#[test]
fn long_chats_fit() {
    let render = |template: &str, n: usize, bytes: usize| {
        let text = "x".repeat(bytes);
        let message = || Input::Map(vec![("role", Input::Str("user")), ("content", Input::Str(&text))]);
        let messages = Input::List((0..n).map(|_| message()).collect());
        Template::parse(template).unwrap().render(&[("messages", messages)], NOW).map(|text| text.len())
    };
    let pairs = "{% for m in messages %}{% set ns = namespace(last=true) %}{% for k in messages[loop.index:] %}\
        {% if k.role == 'assistant' %}{% set ns.last = false %}{% endif %}{% endfor %}{{ m.content if ns.last }}{% endfor %}";
    assert_eq!(render(pairs, 500, 150), Ok(75_000));
    assert_eq!(render(pairs, 1000, 1000), Ok(1_000_000));
    let characters = "{% for m in messages %}{% for part in m.content %}\
        {% if part['type'] == 'image' or part is mapping %}!{% endif %}{% endfor %}{{ m.content }}{% endfor %}";
    assert_eq!(render(characters, 1, 1_000_000), Ok(1_000_000));
    // A literal is not copied when it is only passed on.
    let literals =
        format!("{{% for a in range(50000) %}}{{% set x = '{}' %}}{{% endfor %}}", "x".repeat(60_000));
    assert_eq!(render(&literals, 1, 1), Ok(0));
}

/// A cycle through a namespace is freed when the rendering ends, and so is a chain of many.
#[test]
fn namespaces_are_freed() {
    for _ in 0..300 {
        let template = "{% set ns = namespace() %}{% set ns.me = [ns] %}{% set ns.text = 'x' * 1000000 %}{{ ns.text | length }}";
        assert_eq!(render(template).as_deref(), Ok("1000000"));
    }
}

/// Real templates with pieces cut out, doubled and swapped: any outcome is fine, but no panic.
#[test]
fn mangled_templates_do_not_panic() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    };
    // All that expressions are made of, so that whole words are exchanged and most results still parse.
    let corpus = [LLAMA_3_1, QWEN_3, include_str!("language.rs"), include_str!("jinja.rs")].join(" ");
    let words: Vec<&str> = corpus.split_inclusive([' ', '(', ')', '[', ']', '|', '.', '~', ',']).collect();
    let tags: Vec<&str> = [LLAMA_3_1, QWEN_3]
        .iter()
        .flat_map(|template| template.split_inclusive("%}").flat_map(|part| part.split_inclusive("}}")))
        .collect();
    for round in 0..3000 {
        let template = if round % 2 == 0 { LLAMA_3_1 } else { QWEN_3 };
        let mut words_here: Vec<&str> =
            template.split_inclusive([' ', '(', ')', '[', ']', '|', '.']).collect();
        for _ in 0..=random(3) {
            let at = random(words_here.len());
            match random(4) {
                0 => words_here[at] = words[random(words.len())],
                1 => words_here.swap(at, 0),
                2 => words_here.insert(at, tags[random(tags.len())]),
                _ => drop(words_here.remove(at)),
            }
        }
        let source = words_here.concat();
        let _ = render(&source);
    }
}

/// Every operator, filter, test, method and function with every kind of operand.
#[test]
fn odd_operands_do_not_panic() {
    let operands = [
        "missing",
        "none",
        "true",
        "0",
        "-1",
        "1000",
        "-1000",
        "1.5",
        "1e308",
        "''",
        "'é<'",
        "[]",
        "[1, 'a', none]",
        "{}",
        "{'a': [1]}",
        "range",
        "namespace(a=1)",
        "messages",
    ];
    let mut expressions = Vec::new();
    for a in operands {
        for b in operands {
            for op in ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and"] {
                expressions.push(format!("{a} {op} {b}"));
            }
            for filter in [
                "trim",
                "upper",
                "title",
                "string",
                "e",
                "length",
                "int",
                "float",
                "bool",
                "abs",
                "default",
                "replace",
                "indent",
                "tojson",
                "items",
                "dictsort",
                "list",
                "first",
                "last",
                "join",
                "reverse",
                "sort",
                "unique",
                "min",
                "max",
                "map",
                "select",
                "reject",
                "selectattr",
                "rejectattr",
            ] {
                expressions.push(format!("{a} | {filter}"));
                expressions.push(format!("{a} | {filter}({b})"));
                expressions.push(format!("{a} | {filter}({b}, {b}, {b})"));
                expressions.push(format!("{a} | {filter}(filter={b}, attribute={b}, indent={b})"));
            }
            for test in
                ["eq", "lt", "in", "odd", "divisibleby", "sameas", "upper", "startingwith", "iterable"]
            {
                expressions.push(format!("{a} is {test}({b})"));
            }
            for method in [
                "strip",
                "split",
                "rsplit",
                "splitlines",
                "startswith",
                "replace",
                "join",
                "find",
                "rfind",
                "index",
                "count",
                "isdigit",
                "removeprefix",
                "get",
                "items",
                "keys",
                "values",
                "cycle",
                "title",
            ] {
                expressions.push(format!("({a}).{method}()"));
                expressions.push(format!("({a}).{method}({b})"));
                expressions.push(format!("({a}).{method}({b}, {b}, {b})"));
            }
            for function in ["range", "namespace", "dict", "strftime_now"] {
                expressions.push(format!("{function}({a}, {b})"));
                expressions.push(format!("{function}({a}, {b}, {b})"));
                expressions.push(format!("{function}(a={a}, b={b})"));
            }
            expressions.push(format!("({a})[{b}]"));
            expressions.push(format!("({a})[{b}:]"));
            expressions.push(format!("({a})[:{b}:{b}]"));
            expressions.push(format!("({a})[{b}::-1]"));
            expressions.push(format!("-{a}"));
        }
    }
    for expression in expressions {
        let _ = render(&format!("{{{{ {expression} }}}}"));
    }
}
