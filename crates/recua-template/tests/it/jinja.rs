//! Templates with what Jinja2 3.1.6 makes of them in the environment of transformers; `None` where it fails. The table was
//! made by running them there.

use crate::render;

#[track_caller]
pub(crate) fn check(cases: &[(&str, Option<&str>)]) {
    for (template, expected) in cases {
        match (render(template), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, *expected, "{template}"),
            (Err(_), None) => {}
            (found, expected) => panic!("{template}: {found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn white_space() {
    check(&[
        ("a\n  {% if true %}\n  b\n  {% endif %}\n  c", Some("a\n  b\n  c")),
        ("a {%- if true -%} b {%- endif -%} c", Some("abc")),
        ("  {%+ if true +%}\n x{% endif %}", Some("  \n x")),
        ("{% if true +%}\nx{% endif %}", Some("\nx")),
        ("{# c #}\nx", Some("x")),
        ("  {# c #}  \nx", Some("  \nx")),
        ("a\n  {#- c -#}  \n b", Some("ab")),
        ("a\n\t {#+ c +#}\nb", Some("a\n\t \nb")),
        ("{{ 1 -}}  \n  {{- 2 }}  {{ 3 }}\n\n{{ 4 }}", Some("12  3\n\n4")),
        ("{% set x = 1 %}  \n{{ x }}", Some("  \n1")),
        ("x  {% set y = 1 %}\ny", Some("x  y")),
        ("{% for a in [1,2] -%}\n  {{ a }}\n{%- endfor %}|", Some("12|")),
        ("\n\n", Some("\n")),
        ("a\r\nb\rc\n", Some("a\nb\nc")),
        ("{% if true %}\r\na{% endif %}\r\n", Some("a")),
        ("a\u{a0}{%- if 1 %} b{% endif %}", Some("a b")),
        ("\u{2003}{% if 1 %}b{% endif %}", Some("b")),
        ("{% raw %}  {{ x }} {% if %}\n{% endraw %}\ny", Some("  {{ x }} {% if %}\ny")),
        ("a {%- raw -%}  {{ b }}  {%- endraw -%}  c", Some("a{{ b }}c")),
        ("  {% raw +%}x{% endraw %}", None),
        ("{% raw -%}\n x{%+ endraw +%}\ny", Some("x\ny")),
        ("  {% raw %}\n  {% endraw %}\nz", Some("\nz")),
        ("{%raw%}a{%endraw%}b", Some("ab")),
        ("{#{{#}x", Some("x")),
        ("{{ '}}' }}{{ '%}' }}{% set x = '%}' %}{{ x }}", Some("}}%}%}")),
        ("{{ {'a': {'b': 1}}['a']['b'] }}", Some("1")),
        ("{{{'a':1}}}", Some("{'a': 1}")),
        ("{{-1}}", Some("1")),
        ("a {{-1}}", Some("a1")),
        ("{{+1}}", Some("1")),
        ("{{ - 1 }}", Some("-1")),
        ("{% set x = 1 %}\n\n{{ x }}", Some("\n1")),
        ("{{ 'a\r\nb' | length }}", Some("3")),
        ("{%- set a = 1 %}\n{%- set b = 2 %}\n  {{- a + b }}\n", Some("3")),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("{{ 'a\\tb\\nc\\\\d\\'e\\\"f' }}", Some("a\tb\nc\\d'e\"f")),
        ("{{ '\\x41\\u00e9\\U0001F999\\101\\0' | tojson }}", Some("\"Aé🦙A\\u0000\"")),
        ("{{ '\\q\\8\\ \\(' }}", Some("\\q\\8\\ \\(")),
        ("{{ '\\é\\€\\🦙' }}", Some("\\xe9\\u20ac\\U0001f999")),
        ("{{ 'a\\\nb' }}", Some("ab")),
        ("{{ '\\x4' }}", None),
        ("{{ '\\u12' }}", None),
        ("{{ '\\U00110000' }}", None),
        ("{{ 'a' \"b\" 'c' }}", Some("abc")),
        ("{{ ['a\\'b', \"a'b\\\"c\", 'é\\x07\\x7f'] }}", Some("[\"a'b\", 'a\\'b\"c', 'é\\x07\\x7f']")),
        ("{{ 'ab' 'cd' | upper }}", Some("ABCD")),
        ("{{ \"it's\" ~ 'a \"quote\"' }}", Some("it'sa \"quote\"")),
        ("{{ '\\a\\b\\f\\v' | tojson }}", Some("\"\\u0007\\b\\f\\u000b\"")),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("{{ 1_000 }}", Some("1000")),
        ("{{ 0x_1F }}", Some("31")),
        ("{{ 0b101 + 0o17 }}", Some("20")),
        ("{{ 1e3 }}", Some("1000.0")),
        ("{{ 1.5E-2 }}", Some("0.015")),
        ("{{ 1_0.2_5 }}", Some("10.25")),
        ("{{ 007 }}", None),
        ("{{ 00 }}", Some("0")),
        ("{{ [10, 20].1 }}", Some("20")),
        ("{{ [[1, 2], [3, 4]].1.0 }}", Some("3")),
        ("{{ 123456789012345680.0 }}", Some("1.2345678901234568e+17")),
        ("{{ 1e16 }}", Some("1e+16")),
        ("{{ 1e15 }}", Some("1000000000000000.0")),
        ("{{ 0.0001 }}", Some("0.0001")),
        ("{{ 0.00001234 }}", Some("1.234e-05")),
        ("{{ 1e300 * 10 }}", Some("1e+301")),
        ("{{ 5e-324 }}", Some("5e-324")),
        ("{{ 100 / 3 }}", Some("33.333333333333336")),
        ("{{ 2 ** 0.5 }}", Some("1.4142135623730951")),
        ("{{ 7.5 // 2 }}", Some("3.0")),
        ("{{ -7.5 % 2 }}", Some("0.5")),
        ("{{ 1.0 * 3 }}", Some("3.0")),
        ("{{ 3 | float }}", Some("3.0")),
        ("{{ 2.5 | round }}", Some("2.0")),
        ("{{ 3.5 | round }}", Some("4.0")),
        ("{{ 1.25 | round(1) }}", Some("1.2")),
        ("{{ 1.21 | round(1, 'ceil') }}", Some("1.3")),
        ("{{ 1.29 | round(1, 'floor') }}", Some("1.2")),
        ("{{ 7 | round(2) }}", Some("7")),
        ("{{ [1, 2.5] | sum }}", Some("3.5")),
        ("{{ true + true }}", Some("2")),
        ("{{ 1 / 0.0 }}", None),
        ("{{ 5 % -3 }}", Some("-1")),
        ("{{ -5 // 3 }}", Some("-2")),
    ]);
}

#[test]
fn operators() {
    check(&[
        ("{{ not 1 == 2 }}", Some("True")),
        ("{{ not not 1 }}", Some("True")),
        ("{{ 1 + 2 ~ 3 * 4 }}", None),
        ("{{ 'a' ~ 1 + 2 }}", None),
        ("{{ 2 ** 3 ** 2 }}", Some("64")),
        ("{{ -2 ** 2 }}", Some("4")),
        ("{{ -1 | abs }}", Some("1")),
        ("{{ -3 is odd }}", Some("True")),
        ("{{ 1 if 0 else 2 if 0 else 3 }}", Some("3")),
        ("{{ (1 if 0) is defined }}", Some("False")),
        ("{{ 1 < 2 < 3 > 2 }}", Some("True")),
        ("{{ 1 == 1 in [1] }}", Some("True")),
        ("{{ 'a' in 'abc' not in [false] }}", Some("True")),
        ("{{ 1 in [1] and 2 not in [1] or 3 }}", Some("True")),
        ("{{ 0 or '' or none or 'x' }}", Some("x")),
        ("{{ 1 and 'y' and [] }}", Some("[]")),
        ("{{ 10 - 3 - 2 }}", Some("5")),
        ("{{ 100 // 7 % 4 * 2 }}", Some("4")),
        ("{{ [1] + [2] * 2 }}", Some("[1, 2, 2]")),
        ("{{ (1, 2) + (3,) }}", Some("(1, 2, 3)")),
        ("{{ 'ab' * 3 }}", Some("ababab")),
        ("{{ 'x' < 'y' }}", Some("True")),
        ("{{ none == none }}", Some("True")),
        ("{{ 1 is eq 1 and 2 is not eq 1 }}", Some("True")),
        ("{{ 2 is divisibleby 2 }}", Some("True")),
        ("{{ 'a' is in 'abc' }}", Some("True")),
        ("{{ x is defined or y is undefined }}", Some("True")),
        ("{{ 3 is gt 2 }}", Some("True")),
        (
            "{{ [1, 2] is sequence and {} is mapping and 'a' is string and 1 is number and 1.0 is float and true is boolean and none is none }}",
            Some("True"),
        ),
        ("{{ 'abc' is lower and 'ABC' is upper }}", Some("True")),
        ("{{ 1 + '1' }}", None),
        ("{{ [] + () }}", None),
        ("{{ 1 is foo }}", None),
        ("{{ a.b.c }}", None),
        ("{{ (1) }}{{ (1,) }}{{ () }}", Some("1(1,)()")),
        ("{{ 1, 2 }}", Some("(1, 2)")),
        ("{{ [1, 2,] }}{{ {'a': 1,} }}", Some("[1, 2]{'a': 1}")),
        ("{{ 'a' if true }}", Some("a")),
    ]);
}

#[test]
fn collections() {
    check(&[
        (
            "{{ {'a': 1, 2: 'b', none: 3, true: 4, 1.5: 5} }}",
            Some("{'a': 1, 2: 'b', None: 3, True: 4, 1.5: 5}"),
        ),
        ("{{ {'a': 1, 'a': 2} }}", Some("{'a': 2}")),
        ("{{ {1: 2}[1] }}", Some("2")),
        ("{{ {'x': {'y': [1, {'z': 2}]}}.x.y[1].z }}", Some("2")),
        (
            "{{ [1,2,3,4,5][1:-1] }}{{ [1,2,3,4,5][::2] }}{{ [1,2,3][-2:] }}{{ [1,2,3][5:] }}{{ [1,2,3][:-5] }}",
            Some("[2, 3, 4][1, 3, 5][2, 3][][]"),
        ),
        ("{{ 'hello'[1:3] }}{{ 'hello'[::-1] }}{{ 'hello'[-3:] }}", Some("elollehllo")),
        ("{{ (1,2,3)[1:] }}", Some("(2, 3)")),
        (
            "{{ [3,1,2] | sort }}{{ [3,1,2] | sort(reverse=true) }}{{ ['b','C','a'] | sort }}{{ ['b','C','a'] | sort(case_sensitive=true) }}",
            Some("[1, 2, 3][3, 2, 1]['a', 'b', 'C']['C', 'a', 'b']"),
        ),
        (
            "{{ [{'n': 2, 'k': 'a'}, {'n': 1, 'k': 'b'}, {'n': 2, 'k': 'c'}] | sort(attribute='n', reverse=true) | map(attribute='k') | join }}",
            Some("acb"),
        ),
        ("{{ {'b': 2, 'a': 3, 'C': 1} | dictsort }}", Some("[('a', 3), ('b', 2), ('C', 1)]")),
        ("{{ {'b': 2, 'a': 3, 'C': 1} | dictsort(true) }}", Some("[('C', 1), ('a', 3), ('b', 2)]")),
        ("{{ {'b': 2, 'a': 3} | dictsort(reverse=true) }}", Some("[('b', 2), ('a', 3)]")),
        ("{{ messages | map(attribute='role') | unique | list }}", Some("['system', 'user', 'assistant']")),
        (
            "{{ messages | groupby('role') | map(attribute=0) | list }}",
            Some("['assistant', 'system', 'user']"),
        ),
        (
            "{% for role, group in messages | groupby('role') %}{{ role }}:{{ group | length }} {% endfor %}",
            Some("assistant:1 system:1 user:2 "),
        ),
        ("{{ messages | map('length') | list }}", Some("[2, 2, 2, 2]")),
        (
            "{{ messages | selectattr('role', 'in', ['user', 'system']) | map(attribute='content') | list }}",
            Some("['Be brief.', ' Hi! ', '1 < 2?']"),
        ),
        ("{{ messages | rejectattr('missing') | list | length }}", Some("4")),
        ("{{ [0, 1, '', 'a', none] | select | list }}{{ [0, 1] | reject | list }}", Some("[1, 'a'][0]")),
        ("{{ [1,2,3,4] | select('even') | list }}", Some("[2, 4]")),
        ("{{ ['a','b'] | map('upper') | join('-') }}", Some("A-B")),
        ("{{ [[1, 2], [3]] | map('first') | list }}", Some("[1, 3]")),
        ("{{ ['x'] | map('default', 'y') | list }}", Some("['x']")),
        (
            "{{ range(7) | batch(3) | list }}{{ range(4) | batch(3, '-') | list }}",
            Some("[[0, 1, 2], [3, 4, 5], [6]][[0, 1, 2], [3, '-', '-']]"),
        ),
        ("{{ [1,2,3] | first }}{{ [1,2,3] | last }}{{ 'abc' | last }}", Some("13c")),
        ("{{ [3, 1] | min }}{{ [3, 1] | max }}{{ ['b', 'a'] | min }}", Some("13a")),
        ("{{ 'abc' | reverse }}{{ [1,2] | reverse | list }}", Some("cba[2, 1]")),
        (
            "{{ {'a': 1, 'b': 2}.items() | list }}{{ {'a': 1}.keys() | list }}{{ {'a': 1}.values() | list }}",
            Some("[('a', 1), ('b', 2)]['a'][1]"),
        ),
        ("{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 5) }}", Some("1None5")),
        (
            "{{ dict(a=1, **{'b': 2}) }}{{ dict([('x', 1)]) }}{{ dict({'a': 1}, b=2) }}",
            Some("{'a': 1, 'b': 2}{'x': 1}{'a': 1, 'b': 2}"),
        ),
        ("{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}", Some("21")),
        ("{{ 'a' in {'a': 1} }}{{ 1 in (1, 2) }}", Some("TrueTrue")),
        ("{{ (1, [2, (3,)]) }}", Some("(1, [2, (3,)])")),
        ("{{ [1, 2] == [1, 2] }}{{ (1,) == [1] }}{{ {'a': 1} == {'a': 1} }}", Some("TrueFalseTrue")),
        ("{{ [none, true, 1.0, 'x'] | string }}", Some("[None, True, 1.0, 'x']")),
        ("{{ 'abc' | list }}{{ (1, 2) | list }}", Some("['a', 'b', 'c'][1, 2]")),
        ("{{ ['a', 1, none] | join('|') }}", Some("a|1|None")),
        ("{{ [1, [2, 3]] | tojson }}", Some("[1, [2, 3]]")),
        (
            "{{ [] | sum }}{{ [1, 2] | sum(start=10) }}{{ [{'n': 1}, {'n': 2}] | sum(attribute='n') }}",
            Some("0133"),
        ),
        ("{{ ['Ab', 'aB'] | unique | list }}", Some("['Ab']")),
        ("{{ 'x' | attr('y') is defined }}", Some("False")),
    ]);
}

#[test]
fn text() {
    check(&[
        ("{{ 'hello world' | title }}{{ \"it's o'clock\" | capitalize }}", Some("Hello WorldIt's o'clock")),
        ("{{ 'a-b c_d'.title() }}", Some("A-B C_D")),
        (
            "{{ ' x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ ' x '.lstrip() }}|{{ ' x '.rstrip() }}|",
            Some("x|a|x | x|"),
        ),
        (
            "{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a  b '.split() }}{{ 'a b c '.split(none, 1) }}{{ 'a b c'.rsplit(none, 1) }}{{ ''.split() }}{{ ''.split(',') }}",
            Some("['a', 'b,c']['a,b', 'c']['a', 'b']['a', 'b c ']['a b', 'c'][]['']"),
        ),
        (
            "{{ 'a\\nb\\r\\nc\\x0bd\\u2028e\\n'.splitlines() }}{{ 'a\\nb\\r\\n'.splitlines(true) }}",
            Some("['a', 'b', 'c', 'd', 'e']['a\\n', 'b\\r\\n']"),
        ),
        (
            "{{ 'abcabc'.find('c') }}{{ 'abcabc'.rfind('c') }}{{ 'abc'.find('x') }}{{ 'aaa'.count('a') }}",
            Some("25-13"),
        ),
        ("{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}", Some("TrueTrue")),
        ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", Some("b")),
        ("{{ 'aXbX'.replace('X', '') }}{{ 'aXbX' | replace('X', 'y', 1) }}", Some("abaybX")),
        ("{{ 'ß'.upper() }}{{ 'ÀÉ'.lower() }}", Some("SSàé")),
        (
            "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(1, false, true) }}|{{ '\\na' | indent(2, true) }}|{{ 'a\\nb' | indent('> ') }}",
            Some("a\n    b\n\n    c|  a\n  b|a\n \n b|  \n  a|a\n> b"),
        ),
        ("{{ '%s is %d, %5.2f, %x' | format('a', 3, 1.5, 255) }}", Some("a is 3,  1.50, ff")),
        ("{{ '%-5s|%5s|%05d|%%' % ('a', 'b', 42) }}", Some("a    |    b|00042|%")),
        ("{{ '%s' % [1] }}{{ '%r' % 'a' }}{{ '%s %s' % ('a',) }}", None),
        ("{{ '%s' % ('a', 'b') }}", None),
        ("{{ '{} {} {x} {{}}'.format('a', [1], x=3) }}", Some("a [1] 3 {}")),
        ("{{ '{0}{1}{0}'.format('a', 'b') }}", Some("aba")),
        ("{{ 'ab'.center(5) }}|{{ 'a' | center(4) }}|{{ 'abc'.center(2) }}|", Some("  ab | a  |abc|")),
        ("{{ 'a b/c?é' | urlencode }}", Some("a%20b/c%3F%C3%A9")),
        ("{{ '<a href=\"x\">&\\'' | e }}", Some("&lt;a href=&#34;x&#34;&gt;&amp;&#39;")),
        ("{{ 'abc' | length }}{{ 'é🦙' | length }}", Some("32")),
        (
            "{{ '12' | int + 1 }}{{ '1.9' | int }}{{ 'x' | int(7) }}{{ ' 5 ' | int }}{{ none | int }}{{ '1e2' | float }}",
            Some("131750100.0"),
        ),
        ("{{ ', '.join(['a', 'b']) }}", Some("a, b")),
        (
            "{{ 'a'.isalpha() }}{{ '1'.isdigit() }}{{ ' '.isspace() }}{{ 'A'.isupper() }}{{ 'a'.islower() }}{{ ''.isalpha() }}",
            Some("TrueTrueTrueTrueTrueFalse"),
        ),
        ("{{ 'abc'['upper']() }}", Some("ABC")),
        (
            "{{ 'x' | default('y') }}{{ missing | default('y') }}{{ '' | default('y', true) }}{{ missing | d }}",
            Some("xyy"),
        ),
        ("{{ 'abc'.frob() }}", None),
        ("{{ 'abc' | frob }}", None),
    ]);
}

#[test]
fn json() {
    check(&[
        (
            "{{ {'a': [1, 2.5, true, none, 'é\"\\\\/'], 'b': {}} | tojson }}",
            Some("{\"a\": [1, 2.5, true, null, \"é\\\"\\\\/\"], \"b\": {}}"),
        ),
        (
            "{{ {'a': [1, {'b': []}]} | tojson(indent=2) }}",
            Some("{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ]\n}"),
        ),
        (
            "{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }}",
            Some("{\"a\": {\"c\": 2, \"d\": 1}, \"b\": 1}"),
        ),
        ("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}", Some("[1,{\"a\":2}]")),
        ("{{ [1, 2] | tojson(indent=1, separators=(' , ', ' : ')) }}", Some("[\n 1 , \n 2\n]")),
        ("{{ 'é🦙\\x7f' | tojson(ensure_ascii=true) }}", Some("\"\\u00e9\\ud83e\\udd99\\u007f\"")),
        ("{{ 'é' | tojson(true) }}", Some("\"\\u00e9\"")),
        (
            "{{ {1: 2, none: 3, false: 4, 1.5: 5} | tojson }}",
            Some("{\"1\": 2, \"null\": 3, \"false\": 4, \"1.5\": 5}"),
        ),
        ("{{ [1] | tojson(indent='--') }}", Some("[\n--1\n]")),
        ("{{ '\\x00\\x1f\\u2028' | tojson }}", Some("\"\\u0000\\u001f\u{2028}\"")),
        ("{{ missing | tojson }}", None),
        ("{{ (1, 2) | tojson }}", Some("[1, 2]")),
        (
            "{{ messages[0] | tojson(indent=4) }}",
            Some("{\n    \"role\": \"system\",\n    \"content\": \"Be brief.\"\n}"),
        ),
        ("{{ 1e16 | tojson }}{{ 1e-7 | tojson }}", Some("1e+161e-07")),
    ]);
}

#[test]
fn statements() {
    check(&[
        (
            "{% for a in [1, 2, 3] if a != 2 %}{{ loop.index }}{{ a }}{{ loop.last }} {% endfor %}",
            Some("11False 23True "),
        ),
        ("{% for a in [] %}x{% else %}y{% endfor %}", Some("y")),
        ("{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a }}{{ b }}{% endfor %}", Some("x1y2")),
        ("{% for a in 'ab' %}{{ a }}{{ loop.revindex }}{{ loop.revindex0 }}{% endfor %}", Some("a21b10")),
        ("{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}", Some("13")),
        (
            "{% for a in [1, 2, 3] %}{% for b in [1, 2] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
            Some("11 21 31 "),
        ),
        (
            "{% for a in [1, 2] %}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
            Some("x210y110"),
        ),
        ("{% for a in [1, 1, 2, 2] %}{{ loop.changed(a) }} {% endfor %}", Some("True False True False ")),
        (
            "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}<{{ loop(n.c) }}>{{ loop.depth }}{% endfor %}",
            Some("1<2<>2>1"),
        ),
        ("{% set a = 1 %}{% for x in [1] %}{% set a = 2 %}{{ a }}{% endfor %}{{ a }}", Some("21")),
        ("{% set a, b = 1, 2 %}{{ a }}{{ b }}", Some("12")),
        ("{% set a, (b, c) = [1, (2, 3)] %}{{ a }}{{ b }}{{ c }}", Some("123")),
        ("{% set x = 1, 2 %}{{ x }}", Some("(1, 2)")),
        ("{% set x | upper | trim %} a{{ 1 }} {% endset %}[{{ x }}]", Some("[A1]")),
        (
            "{% set ns = namespace(a=1, b=[]) %}{% set ns.a = 2 %}{% set ns.b = ns.b + [3] %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
            Some("2[3]False"),
        ),
        ("{% set ns = namespace(a=1) %}{% set ns['a'] = 2 %}", None),
        ("{% set d = {} %}{% set d.x = 1 %}", None),
        ("{% if 0 %}a{% elif 1 %}b{% elif 2 %}c{% else %}d{% endif %}", Some("b")),
        ("{% if 0 %}a{% elif 0 %}b{% else %}d{% endif %}", Some("d")),
        ("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", Some("3False")),
        ("{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", Some("1False")),
        ("{% filter upper | replace('A', 'b') %}aXa{% endfilter %}", Some("bXb")),
        (
            "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c='y') }}{{ f(a=5) }}{{ f() }}",
            Some("12x;13x;12y;52x;2x;"),
        ),
        (
            "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f() }}{{ f(1, x=2) }}",
            Some("(){}(1,){'x': 2}"),
        ),
        ("{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", None),
        ("{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}", None),
        ("{% macro f(a, a1=1, b) %}{% endmacro %}", None),
        (
            "{% macro f(x) %}[{{ caller(x + 1) }}]{% endmacro %}{% set q = 7 %}{% call(y) f(1) %}{{ y }}{{ q }}{% endcall %}",
            Some("[27]"),
        ),
        (
            "{% macro f() %}{{ caller() }}{% endmacro %}{% for i in [1, 2] %}{% call f() %}{{ i }}{{ loop.index }}{% endcall %}{% endfor %}",
            Some("1122"),
        ),
        ("{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", None),
        (
            "{% macro f() %}{{ caller is defined }}{{ caller() if caller }}{% endmacro %}{{ f() }}{% call f() %}y{% endcall %}",
            Some("FalseTruey"),
        ),
        (
            "{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1, 2]) }}{{ f(**{'b': 1, 'a': 2}) }}{{ f(1, **{'b': 3}) }}",
            Some("122113"),
        ),
        ("{% macro f() %}{% endmacro %}{{ f.name }}{{ f is callable }}{{ f() == '' }}", Some("fTrueTrue")),
        ("{% generation %}a{% set g = 1 %}{% endgeneration %}{{ g is defined }}", Some("aFalse")),
        ("{% set j = joiner('; ') %}{% for a in [1, 2, 3] %}{{ j() }}{{ a }}{% endfor %}", Some("1; 2; 3")),
        ("{{ raise_exception('no') }}", None),
        ("{% break %}", None),
        ("{% macro f() %}{% break %}{% endmacro %}", None),
        ("{% for a in [1] %}", None),
        ("{% if 1 %}{% endfor %}", None),
        ("{% endif %}", None),
        ("{% else %}", None),
        ("{% foo %}", None),
        ("{{ }}", None),
        ("{{ 1 2 }}", None),
        ("{{ (1 }}", None),
        ("{{ [1) }}", None),
        ("{{ a b }}", None),
        ("{% set 1 = 2 %}", None),
        ("{% set x.y.z = 1 %}", None),
        ("{% for true in [1] %}{% endfor %}", None),
        ("{{ f(a=1, 2) }}", None),
        ("{{ f(**a, *b) }}", None),
        ("{{ x[1, 2] }}", None),
        ("{{ x[] }}", None),
        ("{{ a. }}", None),
        ("{{ 1 | }}", None),
        ("{{ 1 is }}", None),
        ("{{ $ }}", None),
        ("{{ 'a }}", None),
        ("{# a", None),
        ("{{ 1", None),
        ("{% if 1", None),
        (
            "{% for a in [1] %}{% set outer = loop %}{% for b in [1, 2] %}{{ outer.index }}{{ loop.index }}{% endfor %}{% endfor %}",
            Some("1112"),
        ),
        ("{% for i in range(3) %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}", Some("0, 1, 2")),
        ("{{ range(5, 1, -2) | list }}{{ range(0) | list }}", Some("[5, 3][]")),
        ("{% for a in [1] %}{{ loop.frob }}{% endfor %}", Some("")),
        ("{% set _ = 1 %}{{ _ }}", Some("1")),
        ("{% set élan = 1 %}{{ élan }}", Some("1")),
        ("{% set if_x = 1 %}{{ if_x }}{% set inner = 2 %}{{ inner }}", Some("12")),
        ("{%if true%}{{1}}{%endif%}", Some("1")),
        ("{% for x in (1, 2) %}{{ x }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}", Some("1212")),
    ]);
}
