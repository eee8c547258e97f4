/** `npm run load`: the k6 scenario against a running stack, judged by Order's own rows. */
import { join } from "node:path";
import { sleep } from "../../services/kit/backoff.ts";
import { ConfigError, environment } from "../../services/kit/config.ts";
import { StackError } from "../../services/stack/errors.ts";
import { readStackSettings } from "../../services/stack/settings.ts";
import { type LoadArguments, parseLoadArguments } from "./arguments.ts";
import { ensureK6 } from "./k6.ts";
import { findKnee } from "./knee.ts";
import { type LoadOptions, measure, readRunningStack } from "./measure.ts";
import { faultsOf, formatResult, formatStep, type LoadResult } from "./result.ts";

const finalMsMax = 1_000;
const rateMax = 100_000;
const kneePrecision = 0.05;
const warmUpSeconds = 5;
/** Between two steps: what the last one left behind (outboxes, archives, garbage) is not the next one's. */
const settleMs = 2_000;

/** Progress goes to the standard error, so that the standard output holds the figures alone. */
function report(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function main(args: LoadArguments, signal: AbortSignal): Promise<boolean> {
  const settings = readStackSettings(environment(), join(import.meta.dir, "../.."));
  // Asked first: nobody should wait for k6 to be built, only to hear that there is no stack.
  await readRunningStack(settings.dataFolder);
  const k6Program = await ensureK6({ cacheFolder: settings.cacheFolder, report });
  const common = { watchShare: args.watchShare, dataFolder: settings.dataFolder, k6Program, signal };
  return args.ramp ? await ramp(args, common) : await load(args, common);
}

type CommonOptions = Pick<LoadOptions, "watchShare" | "dataFolder" | "k6Program" | "signal">;

async function load({ ratePerSecond, seconds, json }: LoadArguments, common: CommonOptions): Promise<boolean> {
  report(`Placing ${ratePerSecond} orders a second for ${seconds} s …`);
  const result = await measure({ ...common, ratePerSecond, seconds, report });
  const faults = faultsOf(result);
  console.log(json ? JSON.stringify({ ...result, faults }, undefined, 2) : `\n${formatResult(result)}`);
  report(faults.length === 0 ? "Every order is final, with no errors." : `Not good: ${faults.join(", ")}.`);
  return faults.length === 0;
}

async function ramp({ ratePerSecond, seconds, json }: LoadArguments, common: CommonOptions): Promise<boolean> {
  const steps: { readonly result: LoadResult; readonly faults: readonly string[] }[] = [];
  const quiet = () => undefined;
  report(`Warming up: ${ratePerSecond} orders a second for ${warmUpSeconds} s …`);
  await measure({ ...common, ratePerSecond, seconds: warmUpSeconds, report: quiet });
  report(`Steps of ${seconds} s; placed → final by the database:`);
  const knee = await findKnee({
    firstRate: ratePerSecond,
    rateMax,
    precision: kneePrecision,
    async holds(rate) {
      await sleep(settleMs, common.signal);
      const result = await measure({ ...common, ratePerSecond: rate, seconds, report: quiet });
      const faults = stepFaults(result);
      steps.push({ result, faults });
      report(formatStep(result, faults));
      if (result.notFinal > 0)
        throw new StackError("Orders of this step are still not final: a next step would measure them.");
      return faults.length === 0;
    },
  });
  if (json) console.log(JSON.stringify({ kneeOrdersPerSecond: knee, steps }, undefined, 2));
  else console.log(knee === 0 ? "\nNo rate held." : `\nKnee: ${knee} orders a second.`);
  return knee > 0;
}

/** A step holds when it is a good run and its orders were final in time. */
function stepFaults(result: LoadResult): readonly string[] {
  const p99 = result.finalMs?.p99 ?? 0;
  return [...faultsOf(result), ...(p99 > finalMsMax ? [`p99 over ${finalMsMax} ms`] : [])];
}

const stopping = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => stopping.abort());
try {
  const isGood = await main(parseLoadArguments(process.argv.slice(2)), stopping.signal);
  process.exit(isGood ? 0 : 1);
} catch (error) {
  if (stopping.signal.aborted) process.exit(130);
  if (!(error instanceof StackError || error instanceof ConfigError)) throw error;
  report(error.message);
  process.exit(1);
}
