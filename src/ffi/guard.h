// Keeps exceptions from leaving our C functions.

#pragma once

#include "shim.h"

#include <cstdio>
#include <exception>

// Runs `body`; an exception becomes a message and a status.
template <typename Body>
int32_t sharpv_guarded(char * err, size_t err_len, Body && body) noexcept {
    const char * message = "unknown C++ exception";
    try {
        body();
        return SHARPV_OK;
    } catch (const std::exception & e) {
        // The text does not outlive the exception.
        if (err != nullptr && err_len > 0) {
            std::snprintf(err, err_len, "%s", e.what());
        }
        return SHARPV_THROWN;
    } catch (...) {
        if (err != nullptr && err_len > 0) {
            std::snprintf(err, err_len, "%s", message);
        }
        return SHARPV_THROWN;
    }
}
