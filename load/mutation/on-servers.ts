/** The mutants themselves, on servers that are there. */
import { messageOf } from "../../services/kit/errors.ts";
import { deliveryMutants } from "./delivery.ts";
import { formatDeliveryVerdict } from "./format.ts";
import { judgeDeliveryMutants } from "./judge.ts";

const startedMs = performance.now();
try {
  const verdicts = await judgeDeliveryMutants(deliveryMutants, (verdict) =>
    console.log(formatDeliveryVerdict(verdict)),
  );
  const survivors = verdicts.filter(({ isCaught }) => !isCaught).length;
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(0);
  console.log(
    `\n${verdicts.length} mutants, ${verdicts.length - survivors} caught, ${survivors} survived, ${seconds} s`,
  );
  process.exitCode = survivors === 0 ? 0 : 1;
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
}
