// Two passes of a separable resize, a batch per launch. Promises: rows first, then columns; every byte of `out` written.
//
// NVRTC compiles this text for the device. Tests compile it as C++, one call per thread, so it includes nothing and
// uses only what both have. `Job` is `resize_plan.JOB`, field for field.

struct Job {
    unsigned long long source;  // address of the upright image's first pixel, RGB bytes
    unsigned long long lines;   // float (rows, width, 3): what the first pass leaves for the second
    unsigned long long out;     // bytes (canvas_height, canvas_width, 3)
    long long row_step;         // bytes from one upright row to the next; EXIF turns make steps negative or swap them
    long long column_step;
    int first_row;  // source rows [first_row, first_row + rows) are needed
    int rows;
    int left;  // the image covers [left, left + width) x [top, top + height) of the canvas
    int top;
    int width;
    int height;
    int canvas_width;
    int canvas_height;
    int column_starts;  // indices into `places`; counts follow behind the starts
    int column_weights;  // index into `weights`, [tap][output]
    int row_starts;
    int row_weights;
    int pad;
    int is_bgr;
    int rounds_between;
};

__device__ static float clipped(float value) {
    return value < 0.0f ? 0.0f : (value > 255.0f ? 255.0f : value);
}

__device__ static int rounded(float value) { return (int)(clipped(value) + 0.5f); }

extern "C" __global__ void resize_rows(const Job* jobs, const int* places, const float* weights) {
    const Job job = jobs[blockIdx.y];
    const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)job.rows * job.width) return;
    const int row = (int)(index / job.width);
    const int column = (int)(index % job.width);
    const int start = places[job.column_starts + column];
    const int count = places[job.column_starts + job.width + column];
    const unsigned char* pixel = (const unsigned char*)job.source + (job.first_row + row) * job.row_step +
                                 start * job.column_step;
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    for (int tap = 0; tap < count; ++tap) {
        const float weight = weights[job.column_weights + tap * job.width + column];
        red += weight * pixel[0];
        green += weight * pixel[1];
        blue += weight * pixel[2];
        pixel += job.column_step;
    }
    float* line = (float*)job.lines + index * 3;
    line[0] = job.rounds_between ? (float)rounded(red) : red;
    line[1] = job.rounds_between ? (float)rounded(green) : green;
    line[2] = job.rounds_between ? (float)rounded(blue) : blue;
}

extern "C" __global__ void resize_columns(const Job* jobs, const int* places, const float* weights) {
    const Job job = jobs[blockIdx.y];
    const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)job.canvas_height * job.canvas_width) return;
    const int row = (int)(index / job.canvas_width) - job.top;
    const int column = (int)(index % job.canvas_width) - job.left;
    unsigned char* out = (unsigned char*)job.out + index * 3;
    if (row < 0 || row >= job.height || column < 0 || column >= job.width) {
        out[0] = out[1] = out[2] = (unsigned char)job.pad;
        return;
    }
    const int start = places[job.row_starts + row];
    const int count = places[job.row_starts + job.height + row];
    const float* line = (const float*)job.lines + ((long long)(start - job.first_row) * job.width + column) * 3;
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    for (int tap = 0; tap < count; ++tap) {
        const float weight = weights[job.row_weights + tap * job.height + row];
        red += weight * line[0];
        green += weight * line[1];
        blue += weight * line[2];
        line += (long long)job.width * 3;
    }
    out[job.is_bgr ? 2 : 0] = (unsigned char)rounded(red);
    out[1] = (unsigned char)rounded(green);
    out[job.is_bgr ? 0 : 2] = (unsigned char)rounded(blue);
}
