/** Applies one mutant at a time to the domain code and lets the explorer search for a broken promise. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { applyChange } from "../../mutation/change.ts";
import { smallConfigurations } from "../explorer/configurations.ts";
import { explore } from "../explorer/explorer.ts";
import { type Domains, realDomains } from "../world/services.ts";
import type { Mutant } from "./mutants.ts";

/** Whether a mutant was caught, and by which counterexample. */
export interface Verdict {
  readonly mutant: Mutant;
  /** Undefined if the mutant survived. */
  readonly caughtBy:
    | { readonly configuration: string; readonly message: string; readonly steps: readonly string[] }
    | undefined;
}

const servicesFolder = join(import.meta.dir, "../../../services");

/**
 * Explores the small configurations with each mutant until a promise breaks. Calls `report` after each mutant.
 * @throws Error if a mutant's `from` does not occur exactly once in its file.
 */
export async function judgeMutants(
  mutants: readonly Mutant[],
  report: (verdict: Verdict) => void = () => undefined,
): Promise<readonly Verdict[]> {
  const folder = await mkdtemp(join(tmpdir(), "order-saga-mutants-"));
  try {
    const verdicts: Verdict[] = [];
    for (const [number, mutant] of mutants.entries()) {
      const verdict = judge(mutant, await loadMutant(mutant, join(folder, `${number}.ts`)));
      report(verdict);
      verdicts.push(verdict);
    }
    return verdicts;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function judge(mutant: Mutant, domains: Domains): Verdict {
  for (const { name, ...options } of smallConfigurations) {
    const { counterexample } = explore({ ...options, domains });
    if (counterexample !== undefined) return { mutant, caughtBy: { configuration: name, ...counterexample } };
  }
  return { mutant, caughtBy: undefined };
}

/** Writes the changed domain code to `file` and imports it in place of the real one. */
async function loadMutant(mutant: Mutant, file: string): Promise<Domains> {
  const original = join(servicesFolder, mutant.service, "domain.ts");
  const { name, service } = mutant;
  const changed = applyChange(await Bun.file(original).text(), mutant, { name, file: `${service}/domain.ts` });
  // The copy is in another folder, so relative imports become absolute paths.
  const text = changed.replaceAll(
    /(from\s+)"([^"]+)"/g,
    (_, from: string, specifier: string) =>
      `${from}${JSON.stringify(Bun.resolveSync(specifier, join(original, "..")))}`,
  );
  await Bun.write(file, text);
  return { ...realDomains, [mutant.service]: await import(pathToFileURL(file).href) };
}
