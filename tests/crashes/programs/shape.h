// The interface between the C++ program and its plug-in.

#ifndef SHAPE_H
#define SHAPE_H

struct Shape {
    virtual ~Shape() = default;
    virtual int area() const = 0;
    virtual void fail() const = 0;
};

#endif
