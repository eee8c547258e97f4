/** Applies mutants to the domain code, one at a time, and lets the exploration look for them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { applyChange } from "../mutation/change.ts";
import { realDomains, smallConfigurations } from "./configurations.ts";
import { explore } from "./explorer.ts";
import type { Mutant } from "./mutants.ts";
import type { Domains } from "./world.ts";

/** What the exploration made of a mutant. */
export interface Verdict {
  readonly mutant: Mutant;
  /** Undefined for a survivor. */
  readonly caughtBy:
    | { readonly configuration: string; readonly message: string; readonly steps: readonly string[] }
    | undefined;
}

const services = join(import.meta.dir, "../../services");

/**
 * Explores each mutant until something breaks; `report` hears of each as it is done.
 * @throws Error for a mutant whose `from` is not in its file exactly once: the domain code has moved on.
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

async function loadMutant(mutant: Mutant, file: string): Promise<Domains> {
  const original = join(services, mutant.service, "domain.ts");
  const { name, service } = mutant;
  const changed = applyChange(await Bun.file(original).text(), mutant, { name, file: `${service}/domain.ts` });
  // From where it lies, what it imports has to be named in full.
  const text = changed.replaceAll(
    /(from\s+)"([^"]+)"/g,
    (_, from: string, specifier: string) =>
      `${from}${JSON.stringify(Bun.resolveSync(specifier, join(original, "..")))}`,
  );
  await Bun.write(file, text);
  return { ...realDomains, [mutant.service]: await import(pathToFileURL(file).href) };
}
