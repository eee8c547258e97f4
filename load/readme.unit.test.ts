/** Holds the lists in load/README.md against the code. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { brokerFaultKinds, faultKinds, instanceFaultKinds } from "./chaos/faults/all.ts";
import { points } from "./crash-points/points.ts";
import { largeConfigurations, smallConfigurations } from "./model/explorer/configurations.ts";
import { mutants } from "./model/mutants/mutants.ts";
import { deliveryMutants } from "./mutation/delivery.ts";

const readme = await Bun.file(join(import.meta.dir, "README.md")).text();

/** The first column of the table whose first heading is `heading`. */
function firstColumn(heading: string): readonly string[] {
  const rows = new RegExp(`\\| ${heading} \\|.*\\n\\| ---.*\\n((?:\\|.*\\n)+)`).exec(readme)?.[1] ?? "";
  return rows
    .trim()
    .split("\n")
    .map((row) => (row.split("|")[1] ?? "").trim().replaceAll("`", ""));
}

test("load/README.md lists every kind of fault", () => {
  const kinds = [...faultKinds, ...brokerFaultKinds, ...instanceFaultKinds];
  const listed = firstColumn("fault").flatMap((cell) => cell.split(/, (?=partition|controller|group)/));
  expect(listed.toSorted()).toEqual(kinds.map(({ name }) => name).toSorted());
  expect(readme).toContain(`faults of ${faultKinds.length} kinds`);
});

test("load/README.md lists every crash point", () => expect(firstColumn("point")).toEqual([...points]));

test("load/README.md lists every configuration of the model", () => {
  expect(firstColumn("configuration")).toEqual(
    [...smallConfigurations, ...largeConfigurations].map(({ name }) => name),
  );
});

test("load/README.md gives the number of mutants", () => {
  expect(readme).toContain(`applies ${mutants.length} small mistakes`);
  expect(readme).toContain(`applies ${deliveryMutants.length} mistakes`);
});
