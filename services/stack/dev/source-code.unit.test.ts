import { expect, test } from "bun:test";
import { readSource } from "./source-code.ts";

const read = (text: string) => readSource("services/order/main.ts", text);

test("imports are found in every form, and relative ones are paths from the root", () => {
  const source = read(`
    import { a } from "../kit/config.ts";
    import type { B } from "mysql2/promise";
    import "./side-effect.ts";
    export { c } from "../../proto/envelope.ts";
    export * from "./domain.ts";
    export const d = 1;
    type E = import("./schema.ts").E;
    const f = await import("kafkajs");
    const notImported = "../stack/start.ts"; // import "./comment.ts"
  `);
  expect(source.imports.toSorted()).toEqual([
    "kafkajs",
    "mysql2/promise",
    "proto/envelope.ts",
    "services/kit/config.ts",
    "services/order/domain.ts",
    "services/order/schema.ts",
    "services/order/side-effect.ts",
  ]);
});

test("a function has the name that it is known by, and its length in lines", () => {
  const source = read(`
    function declared() {
      return [1].map((it) => it);
    }
    const assigned = () => {

    };
    class Store {
      constructor() {}
      async read() {
        return 1;
      }
      #write() {}
    }
    const routes = { get() {}, post: () => undefined };
    run(() => undefined);
  `);
  expect(source.functions.map(({ name, lineCount }) => `${name} ${lineCount}`)).toEqual([
    "declared 3",
    "callback in declared 1",
    "assigned 3",
    "constructor 1",
    "read 3",
    "#write 1",
    "get 1",
    "post 1",
    "callback in the module 1",
  ]);
  expect(source.lineCount).toBe(16);
});

test("variables are shared by a closure if functions inside it use them", () => {
  const source = read(`
    let started = false;
    export function open() {
      let connections = 0;
      let unshared = 0;
      const fixed = 1;
      unshared++;
      if (fixed) {
        let nested = 0;
        later(() => nested++);
      }
      return {
        connect() {
          let own = 0;
          own += connections++;
          return own;
        },
        close: () => (started = { unshared: true }.unshared),
      };
    }
  `);
  const shared = source.closures.filter(({ sharedVariables }) => sharedVariables.length > 0);
  expect(shared).toEqual([
    { name: "the module", sharedVariables: ["started"] },
    { name: "open", sharedVariables: ["connections", "nested"] },
  ]);
});

test("words side by side are found in arrays, union types and objects", () => {
  const listed = (text: string) => read(text).wordLists.some((words) => ["a", "b"].every((it) => words.includes(it)));
  for (const text of [
    'const list = ["a", "b"];',
    'const list = ["a", "b", "c"] as const;',
    'const both = Promise.all([read("a"), read("b")]);',
    'type Name = "a" | "b" | "c";',
    "const counts = { a: 1, b: 1 };",
    'const counts = { "a": 1, b() {} };',
  ]) {
    expect({ text, isList: listed(text) }).toEqual({ text, isList: true });
  }
  for (const text of [
    'const list = ["a"], other = ["b"];',
    'read("a", "b");',
    "const { a, b } = databases;",
    "const domains = { a, b };",
    "interface Domains { a: A; b: B }",
  ]) {
    expect({ text, isList: listed(text) }).toEqual({ text, isList: false });
  }
});
