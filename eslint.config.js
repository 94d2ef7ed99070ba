import js from "@eslint/js"
import globals from "globals"

const rules = {
  "array-callback-return": "error",
  complexity: ["error", 20],
  curly: ["error", "multi-line"],
  "default-case-last": "error",
  "dot-notation": "error",
  eqeqeq: "error",
  "max-lines": ["error", 500],
  "no-alert": "error",
  "no-console": "error",
  "no-constructor-return": "error",
  "no-eval": "error",
  "no-implied-eval": "error",
  "no-loop-func": "error",
  "no-promise-executor-return": "error",
  "no-restricted-properties": [
    "error",
    ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({ property, message: "Text goes in as text: dom.js." })),
  ],
  "no-self-compare": "error",
  "no-shadow": "error",
  "no-throw-literal": "error",
  "no-unmodified-loop-condition": "error",
  "no-unused-expressions": ["error", { allowShortCircuit: true }],
  "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
  "no-useless-concat": "error",
  "no-useless-rename": "error",
  "no-useless-return": "error",
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-const": "error",
  "prefer-object-has-own": "error",
  "prefer-template": "off",
  radix: "error",
  "require-await": "error",
  "sort-imports": ["error", { ignoreDeclarationSort: true, ignoreCase: false }],
  strict: ["error", "never"],
}

export default [
  js.configs.recommended,
  { linterOptions: { reportUnusedDisableDirectives: "error" }, rules },
  { files: ["dashboard/**/*.js"], languageOptions: { globals: globals.browser } },
  { files: ["tests/**/*.js"], languageOptions: { globals: globals.node } },
]
