/** Reads source files as syntax trees, for the tidy rules. */
import { dirname, join } from "node:path";
import { parse } from "@babel/parser";
import type { Function as FunctionNode, Node } from "@babel/types";

export interface SourceFile {
  /** From the project's root, as every path here. */
  readonly path: string;
  readonly text: string;
  readonly lineCount: number;
  /** What it imports or re-exports, types included: packages by name, our own files by path. */
  readonly imports: readonly string[];
  readonly functions: readonly { readonly name: string; readonly lineCount: number }[];
  /** The module and each function in it, with the `let`s of its own that functions inside it use. */
  readonly closures: readonly { readonly name: string; readonly sharedVariables: readonly string[] }[];
  /** Words side by side: strings in an array, members of a union type, keys of an object. */
  readonly wordLists: readonly (readonly string[])[];
}

/** @throws SyntaxError */
export function readSource(path: string, text: string): SourceFile {
  const { program } = parse(text, { sourceType: "module", plugins: ["typescript"] });
  const nodes = [...descendantsOf(program)];
  const functions = nodes.filter(isFunction);
  const names = functionNames(program);
  return {
    path,
    text,
    lineCount: text.trimEnd().split("\n").length,
    imports: nodes.flatMap(specifiersOf).map((it) => (it.startsWith(".") ? join(dirname(path), it) : it)),
    functions: functions.map((node) => ({ name: names.get(node) ?? "", lineCount: linesOf(node) })),
    closures: [program, ...functions].map((node) => ({
      name: names.get(node) ?? "the module",
      sharedVariables: sharedVariablesOf(node),
    })),
    wordLists: nodes.map(wordsOf).filter((words) => words.length > 0),
  };
}

function isFunction(node: Node): node is FunctionNode {
  return /^(FunctionDeclaration|FunctionExpression|ArrowFunctionExpression|(Object|Class|ClassPrivate)Method)$/.test(
    node.type,
  );
}

/** The nodes directly below a node, each with the name of the field that holds it. */
function* childrenOf(node: Node): Generator<readonly [field: string, child: Node]> {
  for (const [field, value] of Object.entries(node)) {
    if (/^(loc|extra|\w+Comments)$/.test(field)) continue;
    for (const child of Array.isArray(value) ? value : [value]) {
      if (typeof child?.type === "string") yield [field, child];
    }
  }
}

/** All nodes below a node. `descend` says whether to look into one. */
function* descendantsOf(node: Node, descend: (node: Node) => boolean = () => true): Generator<Node> {
  for (const [, child] of childrenOf(node)) {
    yield child;
    if (descend(child)) yield* descendantsOf(child, descend);
  }
}

function linesOf({ loc }: Node): number {
  return loc ? loc.end.line - loc.start.line + 1 : 0;
}

function specifiersOf(node: Node): readonly string[] {
  switch (node.type) {
    case "ImportDeclaration":
    case "ExportAllDeclaration":
    case "ExportNamedDeclaration":
    case "ImportExpression":
      return wordOf(node.source);
    case "TSImportType":
      return wordOf(node.source);
    default:
      return [];
  }
}

/** Each function's own name, or the name of what it is assigned to; a callback is named after what surrounds it. */
function functionNames(program: Node): ReadonlyMap<Node, string> {
  const names = new Map<Node, string>();
  const visit = (node: Node, surrounding: string, assignedTo: string | undefined) => {
    let name = surrounding;
    if (isFunction(node)) {
      const own = "key" in node ? node.key : "id" in node ? node.id : undefined;
      name = identifierOf(own) ?? assignedTo ?? `callback in ${surrounding}`;
      names.set(node, name);
    }
    const target = node.type === "VariableDeclarator" ? node.id : node.type === "ObjectProperty" ? node.key : undefined;
    for (const [, child] of childrenOf(node)) visit(child, name, target && identifierOf(target));
  };
  visit(program, "the module", undefined);
  return names;
}

function identifierOf(node: Node | null | undefined): string | undefined {
  if (node?.type === "Identifier") return node.name;
  if (node?.type === "PrivateName") return `#${node.id.name}`;
  return node?.type === "StringLiteral" ? node.value : undefined;
}

function sharedVariablesOf(closure: Node): readonly string[] {
  const ownNodes = [...descendantsOf(closure, (node) => !isFunction(node))];
  const variables = ownNodes.flatMap((node) =>
    node.type === "VariableDeclaration" && node.kind === "let"
      ? node.declarations.flatMap(({ id }) => identifierOf(id) ?? [])
      : [],
  );
  const inner = ownNodes.filter(isFunction);
  const used = new Set(inner.flatMap((node) => [...usedNames(node)]));
  return variables.filter((name) => used.has(name));
}

/** Names that are read or written in a node. Names of properties do not count. */
function* usedNames(node: Node): Generator<string> {
  if (node.type === "Identifier") yield node.name;
  const hasFixedName = "computed" in node && !node.computed;
  for (const [field, child] of childrenOf(node)) {
    if (hasFixedName && (field === "property" || field === "key")) continue;
    yield* usedNames(child);
  }
}

function wordsOf(node: Node): readonly string[] {
  switch (node.type) {
    case "ArrayExpression":
      return node.elements.flatMap((element) => (element === null ? [] : wordsOfElement(element)));
    case "TSUnionType":
      return node.types.flatMap(wordOf);
    case "ObjectExpression":
      // `{ order, inventory }` collects what has these names already.
      return node.properties.flatMap((it) =>
        it.type === "SpreadElement" || (it.type === "ObjectProperty" && it.shorthand) ? [] : keyOf(it),
      );
    default:
      return [];
  }
}

/** `["order", …]`, and `[read("order"), …]`. */
function wordsOfElement(element: Node): readonly string[] {
  return element.type === "CallExpression" ? element.arguments.flatMap(wordOf) : wordOf(element);
}

function wordOf(node: Node | null | undefined): readonly string[] {
  if (node?.type === "TSLiteralType") return wordOf(node.literal);
  return node?.type === "StringLiteral" ? [node.value] : [];
}

function keyOf(node: Node): readonly string[] {
  return "key" in node ? [identifierOf(node.key) ?? []].flat() : [];
}
