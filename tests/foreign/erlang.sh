# Erlang with a native function (NIF), loaded, upgraded and called from many processes.
# packages: erlang-base erlang-dev gcc
# needs: erl erlc cc
# pinned: /nif1\.so
# pinned: /nif2\.so
# results: 3
cat >nif.c <<'C'
#include <erl_nif.h>
static ERL_NIF_TERM square(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    int value;
    (void)argc;
    if (!enif_get_int(env, argv[0], &value))
        return enif_make_badarg(env);
    return enif_make_int(env, value * value + VERSION);
}
static int upgrade(ErlNifEnv *env, void **data, void **old, ERL_NIF_TERM info) {
    (void)env, (void)data, (void)old, (void)info;
    return 0;
}
static ErlNifFunc functions[] = {{"square", 1, square, 0}};
ERL_NIF_INIT(squares, functions, NULL, NULL, upgrade, NULL)
C
include=$(erl -noshell -eval 'io:format("~s", [filename:join([code:root_dir(), "usr", "include"])]), halt().')
for version in 1 2; do cc -shared -fPIC -DVERSION=$version -I "$include" -o nif$version.so nif.c; done
for version in 1 2; do
    cat >squares.erl <<C
-module(squares).
-export([square/1]).
-on_load(load/0).
load() -> erlang:load_nif("./nif$version", 0).
square(_) -> erlang:nif_error(not_loaded).
C
    mkdir -p v$version && erlc -o v$version squares.erl
done
erl -noshell -eval '
    Sum = fun() ->
        Parent = self(),
        Workers = [spawn(fun() -> Parent ! lists:sum([squares:square(I) || I <- lists:seq(1, N)]) end) || N <- lists:seq(1, 50)],
        lists:sum([receive Total -> Total end || _ <- Workers])
    end,
    {module, squares} = code:load_abs("v1/squares"), io:format("first: ~p~n", [Sum()]),
    code:purge(squares), {module, squares} = code:load_abs("v2/squares"), io:format("second: ~p~n", [Sum()]),
    code:purge(squares), code:delete(squares), code:purge(squares), io:format("purged~n"), halt().'
