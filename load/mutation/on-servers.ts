/** The program that main.ts runs on the test servers. */
import { messageOf } from "../../services/kit/errors.ts";
import { deliveryMutants } from "./delivery.ts";
import { formatDeliveryVerdict, formatDeliveryVerdicts } from "./format.ts";
import { judgeDeliveryMutants } from "./judge.ts";

const startedMs = performance.now();
try {
  const verdicts = await judgeDeliveryMutants(deliveryMutants, (verdict) =>
    console.log(formatDeliveryVerdict(verdict)),
  );
  console.log(`\n${formatDeliveryVerdicts(verdicts, performance.now() - startedMs)}`);
  process.exitCode = verdicts.every(({ isCaught }) => isCaught) ? 0 : 1;
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
}
