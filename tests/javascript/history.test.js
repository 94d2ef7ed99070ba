// Which new addresses are a step of the browser's Back.
import assert from "node:assert/strict"
import { test } from "node:test"
import { belongsToTheStepBefore } from "../../dashboard/components/frontend/history.js"

const AT = "http://127.0.0.1:8501/"

test("the study that a page opens by itself is no step, a study that is chosen is one", () => {
  assert.equal(belongsToTheStepBefore(AT, `${AT}?study=P1`, 9000), true)
  assert.equal(belongsToTheStepBefore(`${AT}?cve=m2`, `${AT}?cve=m2&study=P1&source=phantom`, 9000), true)
  assert.equal(belongsToTheStepBefore(`${AT}?study=P1`, `${AT}?study=P2`, 9000), false)
  assert.equal(belongsToTheStepBefore(AT, `${AT}?study=P1&asked=fve`, 9000), false)
  assert.equal(belongsToTheStepBefore(`${AT}?cve=m2`, `${AT}?study=P1`, 9000), false)
})

test("pieces of one address that come one after another are one step, another page later is another", () => {
  assert.equal(belongsToTheStepBefore(`${AT}?study=P1`, `${AT}?study=P1&asked=fve`, 9000), false)
  assert.equal(belongsToTheStepBefore(`${AT}?study=P1&asked=fve`, `${AT}?study=P1&asked=fve&word=3`, 20), true)
  assert.equal(belongsToTheStepBefore(`${AT}cases`, `${AT}results`, 9000), false)
})
