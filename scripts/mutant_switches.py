"""Writes all mutants of cargo-mutants into the sources at once, each behind a switch; used by mutants.py.

A mutant that does not compile in this form is taken out again by `unviable`, which finds it from the compiler's errors by the
comments around each mutant: /*<1,2*/ ... /*>*/ around the code that mutants 1 and 2 change, /*[1*/ ... /*]*/ around what
mutant 1 puts there.
"""

import re

import tree_sitter
import tree_sitter_rust

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
ON = "crate::mutant_switch::on({})"

# The module that the switches call. In a trace each mutant is written down when it is first reached.
MODULE = """
#[doc(hidden)]
pub mod mutant_switch {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static REACHED: [AtomicBool; %d] = [const { AtomicBool::new(false) }; %d];
    static SWITCHES: OnceLock<(usize, Option<std::ffi::OsString>)> = OnceLock::new();

    pub fn on(mutant: usize) -> bool {
        let (active, trace) = SWITCHES.get_or_init(|| {
            let active = std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
            (active, std::env::var_os("MUTANT_TRACE"))
        });
        if let Some(path) = trace && !REACHED[mutant].swap(true, Ordering::Relaxed) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(format!("{mutant}\\n").as_bytes()));
        }
        *active == mutant
    }
}
"""


def switched(source, mutants):
    """`source` (bytes) with the switches of `mutants` ({number: mutant}), and the numbers that have no place in it."""
    tree = PARSER.parse(source)
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def offset(position):
        start = lines[position["line"] - 1]
        line = source[start : lines[position["line"]]].decode()
        return start + len(line[: position["column"] - 1].encode())

    places = {}  # node id -> numbers of its mutants
    touched = set()  # nodes that have mutants beneath them
    left_out = set()
    for number, mutant in mutants.items():
        node = place(tree.root_node, mutant, offset)
        if node is None:
            left_out.add(number)
            continue
        places.setdefault(node.id, []).append(number)
        while node is not None:
            touched.add(node.id)
            node = node.parent

    def emit(node):
        if node.id not in touched:
            return source[node.start_byte : node.end_byte].decode()
        numbers = places.get(node.id, [])
        if numbers and node.type != "match_arm":
            return "/*<{}*/{}/*>*/".format(",".join(map(str, numbers)), WRITERS[node.type](node, numbers))
        if numbers:
            return arm(node, numbers)
        return children(node, node.children)

    def children(node, nodes):
        text, end = "", node.start_byte
        for child in nodes:
            text += source[end : child.start_byte].decode() + emit(child)
            end = child.end_byte
        return text + source[end : node.end_byte].decode()

    def operands(node):
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        return emit(left), node.child_by_field_name("operator").type, emit(right)

    def chosen(numbers, unchanged, before, after):
        """An `if` between what the mutants put, between `before` and `after`, and what is there."""
        text = ""
        for number in numbers:
            put = before + mutants[number]["replacement"] + after
            text += f"if {ON.format(number)} {{ /*[{number}*/{put}/*]*/ }} else "
        return text + f"{{ {unchanged} }}"

    def binary(node, numbers):
        left, operator, right = operands(node)
        on = ON.format(numbers[0])
        if operator in ("&&", "||"):
            return f"({on} ^ (({on} ^ ({left})) {operator} ({on} ^ ({right}))))"
        if operator in ("==", "!=", "<=", ">="):
            return f"((({left}) {operator} ({right})) ^ {on})"
        if operator in ("<", ">"):
            body = chosen(numbers, f"*l {operator} *r", "*l ", " *r")
            return f"(match (&({left}), &({right})) {{ (l, r) => {body} }})"
        return f"(match ({left}, {right}) {{ (l, r) => {chosen(numbers, f'l {operator} r', 'l ', ' r')} }})"

    def assignment(node, numbers):
        left, operator, right = operands(node)
        return chosen(numbers, f"{left} {operator} {right}", f"{left} ", f" {right}")

    def unary(node, numbers):
        operator, operand = node.children[0].type, emit(node.children[1])
        return f"(match ({operand}) {{ v => {chosen(numbers, f'{operator}v', '', 'v')} }})"

    def function(node, numbers):
        body = node.child_by_field_name("body")
        before = source[node.start_byte : body.start_byte].decode()
        text = ""
        for number in numbers:
            text += f" if {ON.format(number)} {{ return /*[{number}*/{mutants[number]['replacement']}/*]*/; }}"
        return before + "{" + text + children(body, body.children)[1:]

    def arm(node, numbers):
        pattern = node.child_by_field_name("pattern")
        condition = pattern.child_by_field_name("condition")
        end = condition.prev_sibling.start_byte if condition else pattern.end_byte
        guard = f"({emit(condition)})" if condition else "true"
        for number in numbers:
            on, replacement = ON.format(number), mutants[number]["replacement"]
            guard = f"({on} || {guard})" if replacement == "true" else f"(!{on} && {guard})"
        written = "/*<{}*/{}/*>*/".format(",".join(map(str, numbers)), guard)
        text = source[node.start_byte : end].decode() + f" if {written}" 
        rest = [child for child in node.children if child.start_byte >= pattern.end_byte]
        at = pattern.end_byte
        for child in rest:
            text += source[at : child.start_byte].decode() + emit(child)
            at = child.end_byte
        return text + source[at : node.end_byte].decode()

    WRITERS = {
        "binary_expression": binary,
        "compound_assignment_expr": assignment,
        "unary_expression": unary,
        "function_item": function,
    }
    return emit(tree.root_node), left_out


def place(root, mutant, offset):
    """The node that a mutant changes."""
    start, end = offset(mutant["span"]["start"]), offset(mutant["span"]["end"])
    genre = mutant["genre"]
    if genre == "FnValue":
        # Attributes and doc comments are within the function's span, and siblings in the tree.
        node = climb(root.descendant_for_byte_range(start, end), "function_item")
        return node if node and node.child_by_field_name("body") else None
    node = root.descendant_for_byte_range(start, end)
    if genre == "BinaryOperator":
        node = node.parent
        return node if node and node.type in ("binary_expression", "compound_assignment_expr") else None
    if genre == "UnaryOperator":
        node = node if node.type == "unary_expression" else node.parent
        return node if node and node.type == "unary_expression" and node.start_byte == start else None
    if genre in ("MatchArm", "MatchArmGuard"):
        node = climb(root.descendant_for_byte_range(start, start + 1), "match_arm")
        while node and genre == "MatchArmGuard":
            condition = node.child_by_field_name("pattern").child_by_field_name("condition")
            if condition and condition.start_byte <= start < condition.end_byte:
                return None if condition.type in ("let_condition", "let_chain") else node
            node = climb(node.parent, "match_arm")
        while node and genre == "MatchArm":
            condition = node.child_by_field_name("pattern").child_by_field_name("condition")
            if condition and condition.type in ("let_condition", "let_chain"):
                return None
            if node.start_byte <= start and end - node.end_byte <= 1 and start - node.start_byte <= 0:
                return node
            node = climb(node.parent, "match_arm")
    return None


def climb(node, kind):
    while node is not None and node.type != kind:
        node = node.parent
    return node


def unviable(text, start):
    """The numbers of the mutants to take out of `text` for a compiler's error at this byte."""
    data = text.encode()
    # A match that lacks an arm: the error is at its value.
    match = PARSER.parse(data).root_node.descendant_for_byte_range(start, start + 1)
    match = climb(match, "match_expression")
    value = match and match.child_by_field_name("value")
    if value and value.start_byte == start:
        return {int(number) for number in re.findall(rb"\(!crate::mutant_switch::on\((\d+)\)", data[start : match.end_byte])}
    at = re.match(rb"crate::mutant_switch::on\((\d+)\)", data[start:])
    if at:
        return {int(at[1])}
    stack = []
    for mark in re.finditer(rb"/\*(?:([<\[])([\d,]+)|[>\]])\*/", data[:start]):
        if mark[1]:
            stack.append(mark[2])
        else:
            stack.pop()
    return {int(number) for number in stack[-1].split(b",")} if stack else set()
