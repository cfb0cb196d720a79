// The pages' scripts are plain ones that share the names of a page; TypeScript's checker knows which there are.
export default [
  { ignores: ["docs/", "site/", "runs/", ".venv/"] },
  {
    files: ["src/**/*.js"],
    languageOptions: { sourceType: "script", ecmaVersion: 2023 },
    rules: {
      "array-callback-return": "error",
      eqeqeq: "error",
      "no-const-assign": "error",
      "no-dupe-keys": "error",
      "no-eval": "error",
      "no-fallthrough": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-self-compare": "error",
      "no-unreachable": "error",
      "no-unsafe-finally": "error",
      "no-unused-vars": ["error", { vars: "local", args: "after-used" }],
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-var": "error",
      "prefer-const": "error",
      strict: ["error", "global"],
    },
  },
];
