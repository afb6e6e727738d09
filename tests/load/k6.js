// saccade under k6, for teams that run it already. Not run by this project's own tests: there is no k6 among its tools.
//
//   k6 run -e URL=http://127.0.0.1:8000 -e MODEL=digits-classifier -e IMAGES=../../repository/.samples/classify \
//     -e COUNT=24 -e RATE=200 tests/load/k6.js
//
// IMAGES holds 000.jpg, 001.jpg, … (k6 cannot list a folder); its path counts from this file. Arrivals are evenly spaced
// and open: k6 starts an iteration whether or not the last one is answered, as long as it has a virtual user left.
// dropped_iterations counts those it could not start, so the run fails if there are any.

import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { Rate } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8000';
const MODEL = __ENV.MODEL || 'digits-classifier';
const IMAGES = __ENV.IMAGES || '../../repository/.samples/classify';
const COUNT = Number(__ENV.COUNT || 24);
const RATE = Number(__ENV.RATE || 100);
const OBJECTIVE_MS = Number(__ENV.OBJECTIVE_MS || 200);

const good = new Rate('good_within_objective');
const bodies = [];
for (let number = 0; number < COUNT; number += 1) {
  bodies.push(open(`${IMAGES}/${String(number).padStart(3, '0')}.jpg`, 'b'));
}

export const options = {
  scenarios: {
    arrivals: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: __ENV.DURATION || '60s',
      preAllocatedVUs: Math.max(50, RATE),
      maxVUs: 10 * Math.max(50, RATE),
    },
  },
  thresholds: {
    http_req_duration: [`p(99)<${OBJECTIVE_MS}`],
    good_within_objective: ['rate>0.99'],
    dropped_iterations: ['count==0'],
  },
  summaryTrendStats: ['med', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
};

export default function predict() {
  const body = bodies[exec.scenario.iterationInTest % bodies.length];
  const response = http.post(`${URL}/v1/models/${MODEL}/predict`, body, {
    headers: { 'Content-Type': 'image/jpeg' },
    timeout: '30s',
    tags: { name: `predict ${MODEL}` },
  });
  check(response, { answered: (answer) => answer.status === 200 });
  good.add(response.status === 200 && response.timings.duration <= OBJECTIVE_MS);
}
