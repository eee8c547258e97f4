import { describe, expect, test } from "bun:test";
import { parseAge, parseOpsArguments, parseTime, UsageError, usageOf, type VerbUsage } from "./arguments.ts";
import { verbs } from "./verbs/all.ts";

const parse = (...args: string[]) => parseOpsArguments(args, verbs);
const errorOf = (...args: string[]) => {
  try {
    parse(...args);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  throw new Error(`${args.join(" ")} was accepted.`);
};

describe("parseOpsArguments", () => {
  test("the longest matching verb is found, with its operand and flags", () => {
    expect(parse("dead").verb.name).toBe("dead");
    const show = parse("dead", "show", "id-1", "--json");
    expect([show.verb.name, show.operand, show.has("json"), show.has("yes")]).toEqual([
      "dead show",
      "id-1",
      true,
      false,
    ]);
  });

  test("a flag's value follows a space or an equals sign, and may begin with a dash", () => {
    const args = parse("republish", "--source", "order", "--from", "-2h", "--to=-1h", "--key=a=b", "--dry-run");
    expect(["source", "from", "to", "key"].map(args.text)).toEqual(["order", "-2h", "-1h", "a=b"]);
    expect(args.has("dry-run")).toBe(true);
  });

  test("flags may stand before or after the operand, and a value may contain spaces", () => {
    const args = parse("discard", "--reason", "not needed any more", "id-1", "--yes", "--operator", "ann");
    expect([args.operand, args.text("reason"), args.text("operator")]).toEqual(["id-1", "not needed any more", "ann"]);
  });

  test("unknown verbs, flags and operands are refused", () => {
    expect(errorOf()).toBe("No verb was given.");
    expect(errorOf("explode")).toBe("There is no verb explode.");
    expect(errorOf("dead", "--frob")).toBe("dead has no flag --frob.");
    // A property that every object has is not a flag.
    expect(errorOf("dead", "--constructor")).toBe("dead has no flag --constructor.");
    expect(errorOf("backlog", "order")).toContain("takes no operand");
    expect(errorOf("retry", "id-1", "id-2")).toBe("retry takes one ID, but also got id-2.");
    expect(errorOf("retry", "-x")).toBe("retry has no flag -x.");
  });

  test("missing operands, flags and values are refused, and so are flags given twice", () => {
    expect(errorOf("dead", "show")).toBe("dead show needs ID.");
    expect(errorOf("discard", "id-1")).toBe("discard needs --reason TEXT.");
    expect(errorOf("discard", "id-1", "--reason")).toBe("--reason needs a value: TEXT.");
    expect(errorOf("discard", "id-1", "--reason", " ")).toBe("--reason needs a value: TEXT.");
    expect(errorOf("discard", "id-1", "--reason", "--yes")).toBe("--reason needs a value: TEXT.");
    expect(errorOf("republish", "--source", "order")).toBe("republish needs --from T.");
    expect(errorOf("backlog", "--json=1")).toBe("--json takes no value.");
    expect(errorOf("backlog", "--source", "a", "--source", "b")).toBe("--source was given twice.");
  });

  test("the former name of a verb is refused with its new name", () => {
    expect(errorOf("replay", "--source", "order", "--from", "-2h")).toBe("replay is now called republish.");
    expect(errorOf("parked", "replay", "key-1")).toBe("parked replay is now called parked redeliver.");
  });

  test("a word that only begins verbs is refused with those verbs", () => {
    const verb = (name: string): VerbUsage => ({ name, flags: {}, synopsis: "", summary: "" });
    expect(() => parseOpsArguments(["archive"], [verb("archive run"), verb("archive status")])).toThrow(
      "There is no verb archive. Verbs that begin with archive: archive run, archive status.",
    );
  });
});

describe("parseTime", () => {
  const now = new Date("2026-03-01T12:00:00.000Z");
  const timeOf = (text: string) => parseTime("from", text)(now).toISOString();

  test("an age is subtracted from now", () => {
    expect(timeOf("now")).toBe("2026-03-01T12:00:00.000Z");
    expect(timeOf("-90s")).toBe("2026-03-01T11:58:30.000Z");
    expect(timeOf("-30m")).toBe("2026-03-01T11:30:00.000Z");
    expect(timeOf("-2h")).toBe("2026-03-01T10:00:00.000Z");
    expect(timeOf("-7d")).toBe("2026-02-22T12:00:00.000Z");
  });

  test("ISO 8601 times are UTC if they name no zone", () => {
    expect(timeOf("2026-02-28T09:30:00Z")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28T09:30:00.125+02:00")).toBe("2026-02-28T07:30:00.125Z");
    expect(timeOf("2026-02-28T09:30:00")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28T09:30")).toBe("2026-02-28T09:30:00.000Z");
    expect(timeOf("2026-02-28")).toBe("2026-02-28T00:00:00.000Z");
  });

  test("anything else is refused as a time", () => {
    for (const text of ["yesterday", "2h", "-2w", "-h", "2026-13-01", "2026-02-28 09:30", "1772272800", "-1.5h"]) {
      expect(() => parseTime("from", text)).toThrow(UsageError);
    }
  });
});

test("parseAge takes ages and nothing else", () => {
  expect(["90s", "30m", "2h", "7d", "0s"].map((text) => parseAge("older-than", text))).toEqual([
    90_000, 1_800_000, 7_200_000, 604_800_000, 0,
  ]);
  for (const text of ["-2h", "7", "d", "1w", "now"]) expect(() => parseAge("older-than", text)).toThrow(UsageError);
});

test("the usage names every verb with all of its flags", () => {
  const usage = usageOf(verbs);
  for (const { name, flags } of verbs) {
    const line = usage.split("\n").find((it) => it.startsWith(`  ${name} `));
    for (const flag of Object.keys(flags)) expect(line).toContain(`--${flag}`);
  }
});
