/* An empty library: what preloading costs whoever does it. */
typedef int nothing;
