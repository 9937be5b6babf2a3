// Calls the function of the plug-in that a line names, or does with an object of the plug-in what
// the line says. It ends at the end of the input.

#include <dlfcn.h>

#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "shape.h"

namespace {

using Function = int (*)();
using Make = Shape *(*)();

void *found(void *plug, const std::string &name) {
    void *symbol = dlsym(plug, name.c_str());
    if (!symbol) throw std::runtime_error(dlerror());
    return symbol;
}

int caught(const Shape &shape) {
    try {
        shape.fail();
    } catch (const std::exception &error) {
        return static_cast<int>(std::string(error.what()).size());
    }
    return 0;
}

}  // namespace

int main(int count, char **ways) {
    void *plug = dlopen("./plug.so", RTLD_LAZY);
    if (!plug) {
        std::cerr << dlerror() << '\n';
        return 1;
    }
    std::map<std::string, Function> functions;
    for (int i = 1; i < count; i++)
        functions[ways[i]] = reinterpret_cast<Function>(found(plug, std::string("plug_") + ways[i]));
    std::unique_ptr<Shape> square(reinterpret_cast<Make>(found(plug, "make_square"))());
    std::unique_ptr<Shape> circle(reinterpret_cast<Make>(found(plug, "make_circle"))());
    std::cout << "ready" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        int result;
        if (line == "area")
            result = square->area();
        else if (line == "caught")
            result = caught(*circle);
        else if (line == "uncaught")
            circle->fail(), result = 0;
        else
            result = functions.at(line)();
        std::cout << result << std::endl;
    }
    // The program does not free the plug-in's objects: their destructors may be gone.
    square.release();
    circle.release();
    return 42;
}
