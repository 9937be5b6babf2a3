/* An empty library, which shows what preloading itself costs. */
typedef int nothing;
