//! The language: statements, expressions, and how mistakes are named.

use std::time::{Duration, SystemTime};

use recua_template::{Error, Input, Template};

use crate::{NOW, render};

#[track_caller]
fn renders(template: &str, expected: &str) {
    assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
}

#[track_caller]
fn evaluates(expression: &str, expected: &str) {
    renders(&format!("{{{{ {expression} }}}}"), expected);
}

#[track_caller]
fn fails(template: &str, wanted: &str) {
    let error = render(template).unwrap_err();
    assert!(error.to_string().contains(wanted), "{error}");
}

#[test]
fn loops_macros_and_blocks() {
    renders(
        "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}",
        "1/2,2/2",
    );
    renders(
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "013",
    );
    renders("{% for x in [] %}a{% else %}none{% endfor %}", "none");
    renders("{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=[2];");
    renders(
        "{% macro tag(name, text='-') %}<{{ name }}>{{ text }}{% endmacro %}{{ tag('a') }}{{ tag('b', text='c') }}",
        "<a>-<b>c",
    );
    renders(
        "{% macro count(n) %}{{ n }}{% if n > 0 %}{{ count(n - 1) }}{% endif %}{% endmacro %}{{ count(3) }}",
        "3210",
    );
    renders(
        "{% set x %} a {% endset %}[{{ x | trim }}]{% filter upper %}b{% endfilter %}{% with y = 1 %}{{ y }}{% endwith %}",
        "[a]B1",
    );
    // A variable set in a loop ends with the round; a namespace keeps it.
    renders(
        "{% set n = 0 %}{% set ns = namespace(n=0) %}{% for m in messages %}{% set n = n + 1 %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ n }}{{ ns.n }}",
        "04",
    );
    renders("{% generation %}a{%- endgeneration -%} b", "ab");
    renders("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny");
}

#[test]
fn expressions() {
    for (expression, expected) in [
        ("(1 + 2 * 3) ~ 'x'", "7x"),
        ("[7 // 2, -7 // 2, -7 % 3, 7 / 2, 2 ** 10]", "[3, -4, 2, 3.5, 1024]"),
        ("'a' in 'cat' and 'b' not in ['a'] and 1 < 2 <= 2", "True"),
        ("'x' if false else 'y'", "y"),
        ("messages[-1].role ~ messages[1:][0]['role']", "useruser"),
        ("'abc'[::-1] ~ 'héllo'[1] ~ 'abc'[1:] ~ 'abc'[:-1]", "cbaébcab"),
        ("[none is none, missing is defined, 3 is odd, 'a' is string]", "[True, False, True, True]"),
        ("missing | default('d') ~ ('' | default('e', true))", "de"),
        ("[3, 1, 2] | sort | join(',')", "1,2,3"),
        ("messages | map(attribute='role') | unique | join(' ')", "system user assistant"),
        ("messages | selectattr('role', 'equalto', 'user') | list | length", "2"),
        ("messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | first", "Be brief."),
        ("[1, none, 'x', 1.0, true] | tojson", "[1, null, \"x\", 1.0, true]"),
        ("{'a': [1, {}], 'b': '<é>'} | tojson", "{\"a\": [1, {}], \"b\": \"<é>\"}"),
        ("{'a': [1]} | tojson(indent=2)", "{\n  \"a\": [\n    1\n  ]\n}"),
        ("{'a': \"it's\", 'b': [none, true, 2.5]}", "{'a': \"it's\", 'b': [None, True, 2.5]}"),
        ("{'b': 1, 'a': 2} | dictsort", "[('a', 2), ('b', 1)]"),
        ("' a b '.strip().split(' ') | length", "2"),
        ("'a,b,c'.split(',', 1)[1] ~ 'a.b.c'.rsplit('.', 1)[0]", "b,ca.b"),
        ("'Hello'.replace('l', 'L', 1) ~ 'x'.upper() ~ 'Y'.lower()", "HeLloXy"),
        ("'hello world' | title ~ ('hELLO' | capitalize)", "Hello WorldHello"),
        ("['abc'.startswith(('x', 'a')), 'abc'.endswith('c')]", "[True, True]"),
        ("{'k': 1}.get('k') ~ {'k': 1}.get('z', 'd')", "1d"),
        ("'a\nb' | indent(2)", "a\n  b"),
        ("['12' | int + 1, '1.5' | float, 'x' | int]", "[13, 1.5, 0]"),
        ("range(5, 0, -2) | list", "[5, 3, 1]"),
        ("['%Y' | length, strftime_now('%Y') | length]", "[2, 4]"),
        ("', '.join(['a', 'b'])", "a, b"),
    ] {
        evaluates(expression, expected);
    }
}

#[test]
fn mistakes_are_named() {
    fails("{{ x.y }}", "undefined has no attribute y");
    fails("a\nb\n{{ 'x' + 1 }}", "line 3, column 8: a string and an integer");
    fails("{{ 'x' | frobnicate }}", "frobnicate");
    fails("{{ 'x'.frobnicate() }}", "frobnicate");
    fails("{{ frobnicate(1) }}", "frobnicate");
    fails("{{ 1 is frobnicate }}", "frobnicate");
    fails("{% for x in messages %}", "");
    fails("{% include 'x' %}", "include");
    fails("{{ 1 / 0 }}", "division by zero");
    fails("{{ 2 ** 126 + 2 ** 126 }}", "128-bit");
    fails("{{ -(2 ** 126) - 2 ** 126 - 1 }}", "128-bit");
    fails("{{ raise_exception('no ' ~ messages[1].role) }}", "no user");
    fails(&"x".repeat((256 << 10) + 1), "262145 bytes");
}

/// The place is that of the operator, filter, name or tag at fault, and the message says what would work.
#[test]
fn mistakes_have_a_place_and_a_cure() {
    let place = |template: &str| match render(template).unwrap_err() {
        Error::Failed { line, column, message } => (line, column, message),
        other => panic!("{template}: {other}"),
    };
    for (template, line, column, wanted) in [
        ("{{ 1 +\n  'x' }}", 1, 6, "~ joins any two as text"),
        ("\n\n  {{ 'é' | frob }}", 3, 12, "known are abs, attr"),
        ("{{ frob(1) }}", 1, 4, "known are raise_exception"),
        ("{% if true %}\n{% frob %}", 2, 4, "known are autoescape, break"),
        ("a\r\nb\r{{ x.y.z }}", 3, 5, "undefined has no attribute y"),
        ("{% for a in b %}{% if a %}{% endfor %}", 1, 30, "belongs to no tag"),
        ("{% for a in b %}\n{% if a %}", 2, 4, "{% endif %} is missing"),
        ("{{ (1 }}", 1, 7, "found } where ) should be"),
        ("{{ [1, 2 }", 1, 10, "found } where ] should be"),
        ("{{ 'abc }}", 1, 4, "' is missing"),
        ("x {# y", 1, 3, "#} is missing"),
        ("{{ 1 $ 2 }}", 1, 6, "text belongs in quotes"),
        ("{{ [].append(1) }}", 1, 6, "x + [y]"),
        ("{{ {}.update({}) }}", 1, 6, "dict(x, name=value)"),
        ("{% set x.y = 1 %}", 1, 1, "namespace() has"),
        ("{% include 'x' %}", 1, 4, "one file"),
        ("{{ 999999999999999999999999999999999999999 }}", 1, 4, "128 bits"),
        ("{{ 'a' | tojson(frob=1) }}", 1, 10, "ensure_ascii, indent, separators, sort_keys"),
        ("{{ strftime_now('%Y', 1) }}", 1, 4, "at most 1 argument"),
        ("{{ 'a' | trim(x=1) }}", 1, 10, "trim takes no x; it takes chars"),
        ("{{ 1 is odd(2) }}", 1, 9, "odd takes no argument"),
        ("{{ 'a'.upper(1) }}", 1, 7, "upper takes no argument"),
        ("{{ ['a'] | map('trim', charz='b') | list }}", 1, 12, "trim takes no charz"),
        ("{{ ['a'] | map(attribute='a', x=1) | list }}", 1, 12, "map takes no x"),
        ("{{ 'a' | replace('a', 'b', old='c') }}", 1, 10, "given the argument old twice"),
        ("{{ messages | selectattr('role') | length }}", 1, 36, "filter list makes a list"),
        ("{% autoescape true %}{% endautoescape %}", 1, 4, "with false only"),
    ] {
        let (found_line, found_column, message) = place(template);
        assert_eq!((found_line, found_column), (line, column), "{template}: {message}");
        assert!(message.contains(wanted), "{template}: {message}");
    }
    let deep = format!("\n{{{{ {} }}}}", "(".repeat(1000) + &")".repeat(1000));
    let (line, _, message) = place(&deep);
    assert!(line == 2 && message.contains("250 levels"), "{message}");
}

/// Templates in use call these; one that is missing here breaks somebody's chat.
#[test]
fn every_filter_is_known() {
    let filters = "abs attr batch bool capitalize center count d default dictsort e escape filesizeformat first \
        float forceescape format groupby indent int items join last length list lower map max min reject rejectattr \
        replace reverse round safe select selectattr slice sort string sum title tojson trim truncate unique upper \
        urlencode wordcount";
    for filter in filters.split_whitespace() {
        let known = match render(&format!("{{{{ messages | {filter} }}}}")) {
            Ok(_) => true,
            Err(error) => !error.to_string().contains("known are"),
        };
        assert!(known, "{filter}");
    }
    // The error names exactly these.
    let message = render("{{ 1 | frob }}").unwrap_err().to_string();
    let named = message.split_once("known are ").unwrap().1.replace(", ", " ");
    assert!(filters.split_whitespace().eq(named.split_whitespace()), "{named}");
}

#[test]
fn variables_of_every_kind() {
    let template = "{{ [a, b, c, d, e, f] | tojson }}{{ d }}{{ f.x }}{{ g is defined }}";
    let variables = [
        ("a", Input::None),
        ("b", Input::Bool(true)),
        ("c", Input::Int(-7)),
        ("d", Input::Float(0.5)),
        ("e", Input::List(vec![Input::Str("x")])),
        ("f", Input::Map(vec![("x", Input::Int(1)), ("y", Input::Map(Vec::new()))])),
    ];
    let template = Template::parse(template).unwrap();
    let expected = "[null, true, -7, 0.5, [\"x\"], {\"x\": 1, \"y\": {}}]0.51False";
    // Parsed once, rendered as often as wanted, from any thread.
    for _ in 0..2 {
        assert_eq!(template.render(&variables, NOW).unwrap(), expected);
    }
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&template);
    assert_eq!(
        Template::parse("{{ 'b' ~ 'a' 'c' }}{% set x = 'a' %}").unwrap().literals().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    // A variable hides a function of the same name.
    assert_eq!(
        Template::parse("{{ range }}").unwrap().render(&[("range", Input::Int(3))], NOW).unwrap(),
        "3"
    );
}

#[test]
fn the_caller_says_what_time_it_is() {
    let template = Template::parse("{{ strftime_now('%Y-%m-%d %H:%M:%S') }}").unwrap();
    let at = |seconds| template.render(&[], SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    assert_eq!((&*at(0), &*at(1_798_761_599)), ("1970-01-01 00:00:00", "2026-12-31 23:59:59"));
}
