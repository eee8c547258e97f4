import { describe, expect, test } from "bun:test";
import { parseAge, parseOpsArguments, parseTime, UsageError, usageOf, type VerbUsage } from "./arguments.ts";
import { verbs } from "./verbs/all.ts";

const parse = (...args: string[]) => parseOpsArguments(args, verbs);
const faultOf = (...args: string[]) => {
  try {
    parse(...args);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  throw new Error(`${args.join(" ")} was accepted.`);
};

describe("parseOpsArguments", () => {
  test("finds the longest verb", () => {
    expect(parse("dead").verb.name).toBe("dead");
    const show = parse("dead", "show", "id-1", "--json");
    expect([show.verb.name, show.operand, show.has("json"), show.has("yes")]).toEqual([
      "dead show",
      "id-1",
      true,
      false,
    ]);
  });

  test("takes values after a blank or an equals sign, also those that begin with a dash", () => {
    const args = parse("replay", "--source", "order", "--from", "-2h", "--to=-1h", "--key=a=b", "--dry-run");
    expect(["source", "from", "to", "key"].map(args.text)).toEqual(["order", "-2h", "-1h", "a=b"]);
    expect(args.has("dry-run")).toBe(true);
  });

  test("takes a reason with blanks, before or after the operand", () => {
    const args = parse("discard", "--reason", "not needed any more", "id-1", "--yes", "--operator", "ann");
    expect([args.operand, args.text("reason"), args.text("operator")]).toEqual(["id-1", "not needed any more", "ann"]);
  });

  test("refuses what it does not know", () => {
    expect(faultOf()).toBe("Which verb?");
    expect(faultOf("explode")).toBe("There is no verb explode.");
    expect(faultOf("dead", "--frob")).toBe("dead has no flag --frob.");
    // Not a flag by accident of how objects work.
    expect(faultOf("dead", "--constructor")).toBe("dead has no flag --constructor.");
    expect(faultOf("backlog", "order")).toContain("takes no operand");
    expect(faultOf("retry", "id-1", "id-2")).toContain("takes ID, and not also id-2");
  });

  test("refuses what is missing or said twice", () => {
    expect(faultOf("dead", "show")).toBe("dead show needs ID.");
    expect(faultOf("discard", "id-1")).toBe("discard needs --reason TEXT.");
    expect(faultOf("discard", "id-1", "--reason")).toBe("--reason needs a value: TEXT.");
    expect(faultOf("discard", "id-1", "--reason", " ")).toBe("--reason needs a value: TEXT.");
    expect(faultOf("discard", "id-1", "--reason", "--yes")).toBe("--reason needs a value: TEXT.");
    expect(faultOf("replay", "--source", "order")).toBe("replay needs --from T.");
    expect(faultOf("backlog", "--json=1")).toBe("--json takes no value.");
    expect(faultOf("backlog", "--source", "a", "--source", "b")).toBe("--source was given twice.");
  });

  test("names the longer verbs of a word that is none by itself", () => {
    const verb = (name: string): VerbUsage => ({ name, flags: {}, synopsis: "", summary: "" });
    expect(() => parseOpsArguments(["archive"], [verb("archive run"), verb("archive status")])).toThrow(
      "There is no verb archive, but archive run and archive status.",
    );
  });
});

describe("parseTime", () => {
  const now = new Date("2026-03-01T12:00:00.000Z");
  const timeOf = (text: string) => parseTime("from", text)(now).toISOString();

  test("ages count from now", () => {
    expect(timeOf("now")).toBe("2026-03-01T12:00:00.000Z");
    expect(timeOf("-90s")).toBe("2026-03-01T11:58:30.000Z");
    expect(timeOf("-30m")).toBe("2026-03-01T11:30:00.000Z");
    expect(timeOf("-2h")).toBe("2026-03-01T10:00:00.000Z");
    expect(timeOf("-7d")).toBe("2026-02-22T12:00:00.000Z");
  });

  test("ISO 8601, in UTC where no zone is named", () => {
    expect(timeOf("2026-02-28T09:30:00Z")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28T09:30:00.125+02:00")).toBe("2026-02-28T07:30:00.125Z");
    expect(timeOf("2026-02-28T09:30:00")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28T09:30")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28")).toBe("2026-02-28T00:00:00.000Z");
  });

  test("nothing else is a time", () => {
    for (const text of ["yesterday", "2h", "-2w", "-h", "2026-13-01", "2026-02-28 09:30", "1772272800", "-1.5h"]) {
      expect(() => parseTime("from", text)).toThrow(UsageError);
    }
  });
});

test("parseAge takes ages alone", () => {
  expect(["90s", "30m", "2h", "7d", "0s"].map((text) => parseAge("older-than", text))).toEqual([
    90_000, 1_800_000, 7_200_000, 604_800_000, 0,
  ]);
  for (const text of ["-2h", "7", "d", "1w", "now"]) expect(() => parseAge("older-than", text)).toThrow(UsageError);
});

test("the usage names every verb and every flag of it", () => {
  const usage = usageOf(verbs);
  for (const { name, flags } of verbs) {
    const line = usage.split("\n").find((it) => it.startsWith(`  ${name} `));
    for (const flag of Object.keys(flags)) expect(line).toContain(`--${flag}`);
  }
});
