/** `npm run load`: places orders on a running stack with k6, and judges the run by the rows in Order's database. */
import { join } from "node:path";
import { sleep } from "../../services/kit/backoff.ts";
import { ConfigError, environment } from "../../services/kit/config.ts";
import { StackError } from "../../services/stack/errors.ts";
import { readStackSettings } from "../../services/stack/settings.ts";
import { type LoadArguments, parseLoadArguments } from "./arguments.ts";
import { ensureK6 } from "./k6.ts";
import { findKnee } from "./knee.ts";
import { type LoadOptions, measure, readRunningStack } from "./measure.ts";
import { formatResult, formatStep, type LoadResult, problemsOf } from "./result.ts";

const finalMsMax = 1_000;
const rateMax = 100_000;
const kneePrecision = 0.05;
const warmUpSeconds = 5;
/** A pause between two steps, so that the archiving and garbage collection of one do not slow down the next. */
const settleMs = 2_000;

/** Progress goes to standard error, so that standard output holds the figures alone. */
function report(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function main(args: LoadArguments, signal: AbortSignal): Promise<boolean> {
  const settings = readStackSettings(environment(), join(import.meta.dir, "../.."));
  // Comes first, so that a missing stack is reported before k6 is built.
  await readRunningStack(settings.dataFolder);
  const k6Program = await ensureK6({ cacheFolder: settings.cacheFolder, report });
  const common = { watchShare: args.watchShare, dataFolder: settings.dataFolder, k6Program, signal };
  return args.ramp ? await ramp(args, common) : await load(args, common);
}

type CommonOptions = Pick<LoadOptions, "watchShare" | "dataFolder" | "k6Program" | "signal">;

async function load({ ratePerSecond, seconds, json }: LoadArguments, common: CommonOptions): Promise<boolean> {
  report(`Placing ${ratePerSecond} orders a second for ${seconds} s …`);
  const result = await measure({ ...common, ratePerSecond, seconds, report });
  const problems = problemsOf(result);
  console.log(json ? JSON.stringify({ ...result, faults: problems }, undefined, 2) : `\n${formatResult(result)}`);
  report(
    problems.length === 0 ? "Every order is final, and there were no errors." : `Problems: ${problems.join(", ")}.`,
  );
  return problems.length === 0;
}

async function ramp({ ratePerSecond, seconds, json }: LoadArguments, common: CommonOptions): Promise<boolean> {
  const steps: { readonly result: LoadResult; readonly problems: readonly string[] }[] = [];
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
      const problems = problemsOfStep(result);
      steps.push({ result, problems });
      report(formatStep(result, problems));
      if (result.notFinal > 0) {
        throw new StackError("Orders of this step are still not final. The next step would measure them too.");
      }
      return problems.length === 0;
    },
  });
  const printed = steps.map(({ result, problems }) => ({ result, faults: problems }));
  if (json) console.log(JSON.stringify({ kneeOrdersPerSecond: knee, steps: printed }, undefined, 2));
  else console.log(knee === 0 ? "\nNo rate held." : `\nKnee: ${knee} orders a second.`);
  return knee > 0;
}

/** A step holds if the run has no problems and its orders were final in time. */
function problemsOfStep(result: LoadResult): readonly string[] {
  const p99 = result.finalMs?.p99 ?? 0;
  return [...problemsOf(result), ...(p99 > finalMsMax ? [`p99 over ${finalMsMax} ms`] : [])];
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
