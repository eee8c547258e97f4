import { expect, test } from "bun:test";
import { join } from "node:path";
import { eventTable } from "../../proto/event-table.ts";

const readme = await Bun.file(join(import.meta.dir, "../../README.md")).text();

function renderedEventTable(): string {
  const name = (schema: { readonly name: string }) => `\`${schema.name}\``;
  const rows = eventTable.map((row) => {
    const reactions = row.reactions.map((reaction) => {
      const answers = reaction.answers.map(name).join(" or ");
      return `${reaction.service} ${reaction.effect}${answers === "" ? "" : ` → ${answers}`}`;
    });
    return `| ${name(row.schema)} | ${row.publishedBy} | ${reactions.join("; ") || "nobody: it is final, for watchers"} |`;
  });
  return ["| event | published by | who reacts, and how |", "| --- | --- | --- |", ...rows].join("\n");
}

test("the README's event table is the one in the code", () => {
  const shown = /<!-- event table -->\n([\s\S]*?)\n?<!-- \/event table -->/.exec(readme)?.[1];
  expect(shown).toBe(renderedEventTable());
});

test("the README's commands exist", async () => {
  const { scripts } = (await Bun.file(join(import.meta.dir, "../../package.json")).json()) as {
    scripts: Record<string, string>;
  };
  const named = [...readme.matchAll(/`npm (?:run )?([a-z]+)/g)].map((match) => match[1] ?? "");
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
});
